"""The command line in this process: much faster than a new one where many calls are tested."""

import warnings

import pytest

from autoperi import cli


def command(*arguments) -> int:
    """The exit status; what was printed is for `capsys`."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        patch.setattr("sys.argv", ["autoperi", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)
