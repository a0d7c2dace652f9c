"""What the entry points share: Hydra's command line, and one line for a user's mistake."""

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lab.config import CONF, advice, check_keys, compose, run_folder
from lab.errors import LabError, Stopped
from lab.folders import absent, remove_empty

Main = Callable[[DictConfig], None]


def entry_point(
    config_name: str, check: Main = lambda cfg: None, first: Sequence[str] = ()
) -> Callable[[Main], Callable[[], None]]:
    """Turns `main(cfg)` into a command with Hydra's overrides, sweeps and launchers.

    check: what can be told from the configuration alone; it raises LabError. It runs before Hydra makes the
    run's folder, and folders made for the run that are still empty when a LabError ends the command are removed:
    bad input writes nothing. Exit code 2.
    first: overrides that stand before the user's.
    """

    def decorate(main: Main) -> Callable[[], None]:
        made: list[Path] | None = None  # by Hydra, for the run; not known in a sweep

        def checked(cfg: DictConfig) -> None:
            check_keys(cfg, config_name)
            check(cfg)

        @functools.wraps(main)
        def job(cfg: DictConfig) -> None:
            of_a_sweep = [Path(HydraConfig.get().runtime.output_dir)]
            with one_line_errors(of_a_sweep if made is None else made):
                log_to_terminal()
                checked(cfg)
                main(cfg)

        def command() -> None:
            nonlocal made
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what is no user's mistake comes with all of its traceback
            arguments = get_args_parser().parse_args()
            here = sys.argv.index(arguments.overrides[0]) if arguments.overrides else len(sys.argv)
            sys.argv[here:here] = first  # beside the user's, or Hydra's parser loses them
            single = not (
                arguments.multirun or arguments.help or arguments.hydra_help or arguments.info or arguments.cfg
            )
            if single:
                with one_line_errors():
                    overrides = [*first, *arguments.overrides]
                    checked(compose(config_name, overrides))
                    made = absent(run_folder(config_name, overrides))
            with one_line_errors(), advice(config_name, [*first, *arguments.overrides]):
                hydra.main(version_base=None, config_path=str(CONF), config_name=config_name)(job)()

        return command

    return decorate


@contextlib.contextmanager
def one_line_errors(made: Sequence[Path] = ()) -> Iterator[None]:
    """A LabError, or what the file system refuses, prints one line and exits with code 2.

    A run that a signal stopped says so and exits with 128 + signal, as does whatever Ctrl-C interrupts.
    made: folders that are removed then as far as they are empty, innermost first.
    """
    try:
        yield
    except (LabError, OSError) as error:
        remove_empty(made)
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        remove_empty(made)
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def log_to_terminal() -> None:
    """Plain messages on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    for ours in ("lab", "experiments", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)
