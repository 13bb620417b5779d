"""Send tasks to both queues and print their results."""

from __future__ import annotations

from sample import app, digest, greet


def main() -> None:
    """Send, wait, print."""
    background = [digest.delay(f"document {number}") for number in range(20)]
    print(greet.delay("compose").get(timeout=30))
    digests = {result.get(timeout=60) for result in background}
    print(f"{len(digests)} digests from lopri")
    app.close()


if __name__ == "__main__":
    main()
