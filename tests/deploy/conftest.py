"""The image, built once; and what it takes to build one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.deploy.containers import Builder, Image, Pod, why_not
from tests.deploy.dockerfile import dockerfile

BUILD_ARGUMENTS = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "https://git.example/it"}


class NewPod(Protocol):
    """Makes a Pod that is gone after the test."""

    def __call__(self, names: Sequence[str] = ()) -> Pod: ...


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """A builder that has carried out every instruction of the Dockerfile."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("images")
    builder = Builder(folder, BUILD_ARGUMENTS)
    builder.build(dockerfile())
    yield builder
    shutil.rmtree(folder)  # some hundred megabytes, which pytest would keep


@pytest.fixture(scope="session")
def image(builder: Builder) -> Image:
    """The image: that of the last stage."""
    return builder.images[dockerfile()[-1].name]


@pytest.fixture
def new_pod(tmp_path: Path) -> Iterator[NewPod]:
    with ExitStack() as stack:

        def make(names: Sequence[str] = ()) -> Pod:
            return stack.enter_context(Pod(tmp_path / "pod", names))

        yield make
