"""An HTTP/JSON and Server-Sent Events gateway to netrunner's native protocol."""
