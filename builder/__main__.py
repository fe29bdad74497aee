"""Where the command begins: signals first, then the second that Python takes to read the rest."""

from __future__ import annotations

from builder import interrupts


def main() -> None:
    """Run the command line. A signal before it has begun, or when it is over, ends it without a word."""
    interrupts.leave()
    from builder.cli import main as run  # noqa: PLC0415 - whoever interrupts this has interrupted nothing

    try:
        run()
    finally:
        interrupts.ignore()


if __name__ == "__main__":
    main()
