"""The README's table of settings, made from the settings class: python -m tools.settings_table."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from gateway.settings import GIB, KIB, MIB, Settings, flag_of

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->\n"
_UNITS = {GIB: "GiB", MIB: "MiB", KIB: "KiB"}


def table() -> str:
    """Every setting: its flag, its default, what it means."""
    rows = ["| setting | default | |", "|---|---|---|"]
    rows += [
        f"| `{flag_of(name)}` | {_default(name, field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows) + "\n"


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if value in (None, (), ""):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"`{value:g}s`"
    if isinstance(value, int) and name.startswith("max_"):
        for size, unit in _UNITS.items():
            if value >= KIB * 32 and value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return f"`{value}`"


def replaced(text: str) -> str:
    """A README with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def main() -> None:
    """Write the table into the README."""
    README.write_text(replaced(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
