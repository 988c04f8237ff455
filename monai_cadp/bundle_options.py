# SPDX-License-Identifier: Apache-2.0
"""What configurations ask about the command that reads them: whether options have an effect, and where they lie.

No option of a bundle is ignored: a mistyped one, one without effect or one of the wrong kind stops the command.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from pydoc import locate
from typing import Any
from weakref import WeakKeyDictionary

from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.config_item import ConfigComponent
from monai.bundle.utils import DEFAULT_HANDLERS_ID
from monai.utils import ensure_tuple

__all__ = ["KINDS", "OPTION_CHECK", "bundle_root", "check_options"]

#: Where configurations name the check.
OPTION_CHECK = "option_check"

TEXT, WHOLE, NUMBER, SWITCH, LIST, CLASS, NAMES = (
    "text",
    "a whole number",
    "a number",
    "True or False",
    "a list of numbers, such as [1, 2]",
    "the number of a class, or a list of numbers",
    "a list of names, such as ['healthy', 'ill']",
)

#: What the options of all bundles and studies are. Names mean the same everywhere.
KINDS = (
    dict.fromkeys(
        (
            "backend",
            "bundle",
            "bundle_root",
            "checkpoint",
            "checkpoint_sha256",
            "datalist_key",
            "dataset_dir",
            "device",
            "input",
            "input_kind",
            "item_column",
            "ledger",
            "model",
            "output",
            "output_dir",
            "output_file",
            "output_format",
            "pretrained",
            "schema",
            "secret_file",
            "split",
            "subject_column",
            "subject_pattern",
            "subgroups",
            "subjects",
            "target",
            "title",
            "tracking_uri",
            "training_data",
            "unit",
        ),
        TEXT,
    )
    | dict.fromkeys(
        (
            "batch_size",
            "cell",
            "classifier_epochs",
            "in_channels",
            "max_epochs",
            "moment_epochs",
            "num_candidates",
            "num_classes",
            "num_content_samples",
            "num_couplings",
            "num_directions",
            "num_frequencies",
            "num_labels",
            "num_mask_classes",
            "num_patients",
            "num_pieces",
            "num_released",
            "num_test",
            "num_workers",
            "patience",
            "preview_interval",
            "patients_per_epoch",
            "rank",
            "segmentation_epochs",
            "validation_interval",
            "width",
        ),
        WHOLE,
    )
    | dict.fromkeys(
        (
            "blur",
            "classifier_delta",
            "delta",
            "detail_temperature",
            "epsilon",
            "label_epsilon",
            "largest_gradient",
            "largest_norm",
            "averaging",
            "learning_rate",
            "max_minutes",
            "noise",
            "published_minutes",
            "set_delta",
            "set_epsilon",
            "spacing",
            "temperature",
            "weight_decay",
            "weight_power",
        ),
        NUMBER,
    )
    | dict.fromkeys(("in_subspace", "quick", "refined", "resume", "skip_unreadable", "slices"), SWITCH)
    | dict.fromkeys(
        (
            "classifier_epsilons",
            "epsilons",
            "images_per_part",
            "intensity_range",
            "other_epsilons",
            "published_epsilons",
            "shares",
            "spatial_shape",
            "volume_shape",
        ),
        LIST,
    )
    | dict.fromkeys(("class_names", "declared"), NAMES)
    | {"condition": CLASS}
)
# What MONAI's commands start from, and what it needs without being used by anything.
NETWORK = "network_def"
ROOTS = ("imports", "initialize", "run", "finalize", OPTION_CHECK, NETWORK)
# What paths begin with that are not given.
ROOT = "bundle_root"
# Where MONAI's experiment tracking has written a configuration with all options.
EXECUTED = "save_execute_config"
# MONAI's own, or of its experiment tracking.
META = ("_meta_", "experiment_name", "is_not_rank0", "run_name", EXECUTED)
# Where it gives a handler to every engine that a configuration has, whether it is run or not.
TRACKED = {
    ReferenceResolver.normalize_id(f"{where['id']}#{'train' if engine == 'trainer' else 'val'}_handlers")
    for engine, where in DEFAULT_HANDLERS_ID.items()
}
READERS = ("monai", "monai_cadp")
REFERENCE_SIGNS = ("@", "$", "%")
# Of the bundle of a configuration, kept for programs that go on with a workflow's parser after MONAI has made it.
FOLDERS: WeakKeyDictionary[ConfigParser, str] = WeakKeyDictionary()
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_options(needs: Mapping[str, str | Sequence[str]] | None = None) -> dict[str, Any]:
    """Compare the configuration that MONAI is about to run with its files, and refuse what would be ignored.

    A configuration names this function as the first of all that is evaluated: under ``initialize``, where
    MONAI's ``run`` begins, before it has printed an option; as what ``run`` begins with, for commands that choose
    another ``init_id``; and as what ``network_def`` requires. Options come from the command line, from an ``args_file``
    or from a call in Python, and MONAI writes all of them into one configuration. So the parser that is evaluating
    this is taken from the calling frames, together with the names of the files it has read and the options of the
    command; what these name or what differs from the files was given. A program that makes a workflow itself leaves
    the differences only: there, an option with the value of its file counts as not given.

    Refused are

    * an option, or a nested id, that the files do not have and nothing uses, or that its component does not take;
    * an option that the files have, but nothing of what is run uses, as where an overlay or a nested id has replaced
      its user;
    * a number where text is meant, for MONAI's command line turns ``1_12`` and ``2024`` into numbers, and text where a
      number is meant;
    * text that MONAI or the shell would have read as something else: a ``#``, a ``~`` at its beginning, or an ``@``
      there before the name of no option;
    * what MONAI's command line has cut: a ``#`` with all behind it, or parentheses and blanks around a value;
    * None for an option of which the file says something else, for MONAI leaves it out;
    * an option without the one that it needs.

    MONAI's ``--tracking`` writes the whole configuration, with the paths and names in it, before anything is checked,
    and stores it in MLflow; that file is removed here. One that was asked for by name stays, and is not stored either.

    Args:
        needs: option by option the one without which it has no effect, or those of which it needs one.

    Returns:
        The options that were given, by their ids as they are typed; for
        :func:`~monai_cadp.release.checkpoint.load_privatizer` to compare those about the network with the checkpoint.

    Raises:
        ValueError: if an option is refused; values are not repeated, for they may name somebody.
        RuntimeError: if it is called by anything but a configuration.

    Example:
        >>> parser = ConfigParser({"run": {"_target_": "monai_cadp.bundle_options.check_options"}, "epsilon": "four"})
        >>> try:
        ...     parser.get_parsed_content("run")
        ... except RuntimeError as error:
        ...     print(error.__cause__)
        The option 'epsilon' came as text, and expected is a number; give that.
    """
    parser, files, runs = _caller()
    _folder(parser)
    _withdraw_from_tracking(parser)
    given, own = parser.get(), _as_written(parser, files)
    # Every path that begins with the folder of the bundle may be given beside it, and then nothing uses it any more.
    used = _used(given) | {ROOT} & _used(own)
    typed = _typed_in_the_command()
    _check_arrived(typed, given, own)
    with_own_value = {id: _at(given, id) for id in typed if _stands(own, id) and id not in META}
    stated = with_own_value | dict(_differences(given, own))
    if EXECUTED in given:
        # Where nothing is measured, as in private training, nobody has asked for a handler of the validation.
        unused = {id for id in TRACKED - set(typed) if not _is_used(id, used)}
        stated = {id: value for id, value in stated.items() if id not in unused}
    for id, value in stated.items():
        if runs and id.split(ReferenceResolver.sep)[0] == NETWORK:
            raise ValueError(_without_effect(id))
        _check_known(id, given, own, used)
        _check_text(id, typed.get(id), given, _kind(id, own))
        _check_kind(id, value, _kind(id, own))
    for name, kind in KINDS.items():
        # What a file has computed is no option that was given.
        if name in given and (name in stated or not ConfigComponent.is_instantiable(given[name])):
            _check_kind(name, given[name], kind)
    for name, others in (needs or {}).items():
        if given.get(name) is not None and all(given.get(other) is None for other in ensure_tuple(others)):
            raise ValueError(
                f"The option {name!r} was given without {' or '.join(map(repr, ensure_tuple(others)))}, and has no "
                "effect without it; give both, or neither."
            )
    return {_typed(id): value for id, value in stated.items()}


def bundle_root() -> str:
    """Return the folder of the bundle whose configuration is being evaluated: the one that holds its ``configs/``.

    The bundles' configurations name this function as their ``bundle_root``, so that they work wherever the bundle lies
    and from wherever it is run. A configuration does not know its own file; as in :func:`check_options`, the calling
    frames do. As in MONAI, several files that are merged belong to the bundle of the first one. A program that has read
    a configuration with a ``ConfigParser`` of its own sets ``bundle_root``, or works in the folder of the bundle.

    Returns:
        The folder, relative to the current one if the configuration was named so; ``"."`` from inside the bundle.

    Raises:
        ValueError: if a program has read the configuration itself, and the current folder is not the one of a bundle.
        RuntimeError: if it is called by anything but a configuration.

    Example:
        >>> from monai_cadp.bundles import shipped_folder
        >>> folder = shipped_folder("bundles") / "cadp_2d"
        >>> workflow = ConfigWorkflow(str(folder / "configs" / "train.yaml"), logging_file=False)
        >>> _ = workflow.initialize()
        >>> workflow.bundle_root == str(folder)
        True
    """
    owners = (here.get("self") for here, _ in _frames())
    parser = next((owner for owner in owners if isinstance(owner, ConfigParser)), None)
    if parser is None:
        raise RuntimeError("The folder of a bundle was asked for outside a configuration; name this function in one.")
    folder = _folder(parser)
    if folder is None and Path("configs", "metadata.json").is_file():
        return "."
    if folder is None:
        raise ValueError(
            "The folder of this bundle is not known to a program that has read its configuration itself; set "
            "'bundle_root' in it, or work in that folder."
        )
    return folder


def _withdraw_from_tracking(parser: ConfigParser) -> None:
    """Remove the file of all options that MONAI's experiment tracking has written, and give it no file to store."""
    written = parser.get(EXECUTED)
    if written:
        # An expression, which fails where output_dir is none itself; a file that was asked for stays.
        named_by_monai = re.search(r"/(config_\d+_\d+\.json)'$", written)
        if named_by_monai:
            Path(parser.get_parsed_content("output_dir"), named_by_monai[1]).unlink(missing_ok=True)
        parser.ref_resolver.resolved_content[EXECUTED] = None


def _folder(parser: ConfigParser) -> str | None:
    """Return the folder of the bundle whose configuration a parser holds; None if nobody has said its files."""
    for here, module in _frames():
        # Not those of another configuration, from which this one is read.
        owner, files = here.get("self"), _files(here, module)
        if isinstance(owner, ConfigWorkflow) and vars(owner).get("parser") is parser:
            FOLDERS[parser] = _above(owner.config_root_path)
            break
        if files and here.get("parser") is parser and not isinstance(files, Mapping):
            # Several may come as one text, with commas between them.
            is_list = isinstance(files, str) and not Path(files).is_file()
            FOLDERS[parser] = _above(Path(files.split(",")[0] if is_list else ensure_tuple(files)[0]).parent)
            break
    return FOLDERS.get(parser)


def _above(folder: Path) -> str:
    """Return the folder of the bundle that has its configurations here: the same folder, unless this is a configs/."""
    is_part = Path(os.path.abspath(folder)).name == "configs"
    return os.path.normpath(folder / os.pardir if is_part else folder)


def _frames() -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the local names of all that is being called, from the inside, and the package of each."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals, frame.f_globals.get("__name__", "").split(".")[0]
        frame = frame.f_back


def _files(here: Mapping[str, Any], module: str) -> Any:
    """Return the configuration files that a frame of a command knows; None for any other frame."""
    if module not in READERS:
        return None
    # In MONAI's commands the first holds what the second, or an args_file, says; the third is that of our own.
    return here.get("config_file_") or here.get("config_file") or here.get("config_files")


def _caller() -> tuple[ConfigParser, Any, bool]:
    """Return the parser that is evaluating, the files that its command names (none for a parser by itself), and whether
    a workflow runs it."""
    parser: ConfigParser | None = None
    folder = None
    for here, module in _frames():
        owner = here.get("self")
        parser = owner if parser is None and isinstance(owner, ConfigParser) else parser
        folder = owner.config_root_path if isinstance(owner, ConfigWorkflow) else folder
        files = _files(here, module)
        if parser is not None and files:
            return parser, files, folder is not None
    if parser is None:
        raise RuntimeError("Options were to be checked outside a configuration; name this function in one.")
    return parser, None if folder is None else _files_in(folder, parser.get()), folder is not None


def _typed_in_the_command() -> dict[str, Any]:
    """Return the options of the command that is running, by their ids, as they came and before MONAI reads them."""
    found: dict[str, Any] = {}
    for here, module in _frames():
        if module in READERS:
            # Names of MONAI's commands for all their arguments, and of our own for those that go to a configuration.
            # Where a workflow is made by its name, they are called as in many other functions.
            named = here.get("kwargs") if "workflow_name" in here else None
            for options in (here.get("_args"), named, here.get("override"), here.get("overrides")):
                if isinstance(options, Mapping):
                    found |= {ReferenceResolver.normalize_id(str(id)): value for id, value in options.items()}
    return found


def _files_in(folder: Path, given: Mapping[str, Any]) -> list[str]:
    """Return the files of a folder that may have made a configuration: those of which it has every section.

    A workflow that a program has made itself has forgotten its files, and knows their folder. Files that change what
    stands in a section of another one come after all others.
    """
    ids = {str(path): [*ConfigParser.load_config_file(str(path))] for path in sorted(folder.glob("*.yaml"))}
    sections = {path: [ReferenceResolver.split_id(id) for id in names] for path, names in ids.items()}
    fitting = [path for path, keys in sections.items() if all(key[0] in given for key in keys)]
    return sorted(fitting, key=lambda path: any(len(key) > 1 for key in sections[path]))


def _as_written(parser: ConfigParser, files: Any) -> dict[str, Any]:
    if not files:
        return dict(parser.get())
    own = ConfigParser(ConfigParser.load_config_files(files))
    own.resolve_macro_and_relative_ids()
    return dict(own.get())


def _join(id: str, key: Any) -> str:
    return f"{id}{ReferenceResolver.sep}{key}" if id else str(key)


def _stands(config: Any, id: str) -> bool:
    """Tell whether something stands at an id, be it null."""
    above, _, key = id.rpartition(ReferenceResolver.sep)
    parent = _at(config, above)
    return key in parent if isinstance(parent, Mapping) else _at(config, id) is not None


def _at(config: Any, id: str) -> Any:
    """Return what stands at an id; None if nothing does."""
    for key in ReferenceResolver.split_id(id) if id else []:
        if isinstance(config, dict) and key in config:
            config = config[key]
        elif isinstance(config, list) and key.isdigit() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config


def _differences(given: Any, own: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the ids at which a configuration differs from its files, as deep as both have the same structure."""
    # A list of numbers is one option.
    same_list = isinstance(given, list) and isinstance(own, list) and len(given) == len(own)
    same_list = same_list and any(isinstance(one, dict | list) for one in (*given, *own))
    same_dict = isinstance(given, dict) and isinstance(own, dict) and given.get("_target_") == own.get("_target_")
    if same_list:
        for index, (one, other) in enumerate(zip(given, own, strict=True)):
            yield from _differences(one, other, _join(id, index))
    elif same_dict:
        for key, value in given.items():
            if not id and key in META:
                continue
            if key in own:
                yield from _differences(value, own[key], _join(id, key))
            else:
                yield _join(id, key), value
    elif type(given) is not type(own) or given != own:
        yield id, given


def _references(config: Any) -> Iterator[str]:
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _references(value)
    elif isinstance(config, str):
        yield from ReferenceResolver.match_refs_pattern(config)


def _used(config: dict[str, Any]) -> set[str]:
    """Return the ids that what is run refers to, directly or through others."""
    used: set[str] = set()
    waiting = [name for name in ROOTS if name in config]
    while waiting:
        id = waiting.pop()
        if id not in used:
            used.add(id)
            waiting.extend(_references(_at(config, id)))
    return used


def _is_used(id: str, used: set[str]) -> bool:
    """Tell whether an id, something around it or something in it is used."""
    keys = id.split(ReferenceResolver.sep)
    around = {ReferenceResolver.sep.join(keys[:count]) for count in range(1, len(keys) + 1)}
    return bool(around & used) or any(other.startswith(id + ReferenceResolver.sep) for other in used)


def _check_known(id: str, given: dict[str, Any], own: dict[str, Any], used: set[str]) -> None:
    above, _, key = id.rpartition(ReferenceResolver.sep)
    parent = _at(given, above)
    is_new = _at(own, above) is not None and isinstance(parent, dict) and key not in _at(own, above)
    if is_new and ConfigComponent.is_instantiable(parent):
        arguments = _arguments(parent["_target_"])
        if arguments is not None and key not in arguments and key not in ConfigComponent.non_arg_keys:
            raise ValueError(_unknown(id, above, [*arguments]))
    if not _is_used(id, used):
        if is_new and not ConfigComponent.is_instantiable(parent):
            raise ValueError(_unknown(id, above, [name for name in _at(own, above) if name not in ROOTS]))
        raise ValueError(_without_effect(id))


def _without_effect(id: str) -> str:
    return (
        f"The option {_typed(id)!r} has no effect with this configuration, in which nothing uses it; leave it out, or "
        "give the configuration that needs it."
    )


def _unknown(id: str, above: str, names: list[str]) -> str:
    key = id.rpartition(ReferenceResolver.sep)[2]
    nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
    hint = f"the nearest one is {_typed(_join(above, nearest[0]))!r}, " if nearest else ""
    return f"This configuration has no option {_typed(id)!r}; {hint}correct it or leave it out."


def _typed(id: str) -> str:
    """Return an id as it is typed on a command line."""
    return id.replace(ReferenceResolver.sep, "#")


def _arguments(target: Any) -> list[str] | None:
    """Return the names of the arguments of a component; None where it takes any.

    What a class takes beside the arguments that it names is for the class that it extends.
    """
    component: Any = locate(target)
    # Not the signature of a class itself, which may be that of how it is made or copied.
    callables = [vars(cls).get("__init__") for cls in component.__mro__] if inspect.isclass(component) else [component]
    names: list[str] = []
    for one in filter(None, callables):
        try:
            parameters = inspect.signature(one).parameters.values()
        except (TypeError, ValueError):
            return None
        named = [parameter.name for parameter in parameters if parameter.kind not in VARIADIC]
        names += [name for name in named if name != "self" and name not in names]
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return names
    return None


def _check_arrived(typed: Mapping[str, Any], given: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse what MONAI's commands leave out of the options that they are given."""
    # Their command line is made by Python Fire.
    tokens = _tokens(sys.argv[1:]) if any(module == "fire" for _, module in _frames()) else {}
    for id, value in typed.items():
        if id in tokens and _is_cut(tokens[id], value):
            raise ValueError(
                f"The option {_typed(id)!r} was cut by the command line, which leaves out a # with all behind it, and "
                "parentheses and blanks around a value; give it without them, and a file or folder another name."
            )
        if value is None and _stands(own, id) and _at(given, id) is not None:
            raise ValueError(
                f"The option {_typed(id)!r} came as None, which MONAI leaves out, so that it would stay as it is; give "
                "it as the text '$None'."
            )


def _tokens(arguments: Sequence[str]) -> dict[str, str]:
    """Return what was typed for every option of a command line, by its id."""
    found = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if _is_flag(argument):
            name, equals, value = argument.lstrip("-").partition("=")
            if equals or not _is_flag(following):
                found[ReferenceResolver.normalize_id(name.replace("-", "_"))] = value if equals else following
    return found


def _is_flag(argument: str) -> bool:
    return re.match("--|-[a-zA-Z]", argument) is not None


def _is_cut(token: str, value: Any) -> bool:
    """Tell whether Python Fire, which reads a token as an expression of Python, has made less of it."""
    if value == token:
        return False
    try:
        body = ast.parse(token, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    # A word is text without quotes, and is all of it.
    return isinstance(body, ast.Name) or ast.get_source_segment(token, body) != token


def _check_text(id: str, value: Any, given: dict[str, Any], kind: str | None) -> None:
    """Refuse text that MONAI, or the shell, reads as something else."""
    if not isinstance(value, str) or value.startswith(("$", "%")):
        return
    name, before_it = _typed(id), "put ./ before a file or folder that is called so"
    if value.startswith("@"):
        if not _stands(given, ReferenceResolver.normalize_id(value[1:])):
            raise ValueError(
                f"The option {name!r} begins with @, by which MONAI finds another option, and none has this name; "
                f"{before_it}."
            )
    elif kind == TEXT and "#" in value:
        raise ValueError(
            f"The option {name!r} holds a #, for which MONAI puts two colons into every text of a configuration; give "
            "the file or folder another name, or a link without one."
        )
    elif kind == TEXT and value.startswith("~"):
        raise ValueError(
            f"The option {name!r} begins with ~, which the shell has left as it is; give the whole path, or "
            f"{before_it}."
        )


def _kind(id: str, own: dict[str, Any]) -> str | None:
    """Return what is meant at an id: by its name, by the option that stands there, or by what the file says."""
    written = _at(own, id)
    if isinstance(written, str):
        if written.startswith("@") and written != f"@{id}":
            return _kind(ReferenceResolver.normalize_id(written[1:]), own)
        return KINDS.get(id) or (None if written.startswith(REFERENCE_SIGNS) else TEXT)
    if id in KINDS:
        return KINDS[id]
    if isinstance(written, bool):
        return SWITCH
    return NUMBER if isinstance(written, Real) else None


def _check_kind(id: str, value: Any, kind: str | None) -> None:
    if isinstance(value, str) and value.startswith(REFERENCE_SIGNS):
        return
    name = _typed(id)
    if kind == TEXT:
        if value is not None and not isinstance(value, str | os.PathLike):
            raise ValueError(
                f"The option {name!r} came as {_what(value)}, and text is meant: the command line reads text such as "
                f"1_12, 2024 or a,b as something else; put it into two pairs of quotes, as in --{name} \"'1_12'\"."
            )
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"The option {name!r} is empty, and text is meant; give it, or leave the option out.")
    elif value is not None and kind is not None and not _fits(value, kind):
        raise ValueError(f"The option {name!r} came as {_what(value)}, and expected is {kind}; give that.")


def _fits(value: Any, kind: str) -> bool:
    if kind == SWITCH:
        return isinstance(value, bool)
    if kind == LIST or (kind == CLASS and isinstance(value, list | tuple)):
        return isinstance(value, list | tuple) and all(_fits(entry, NUMBER) for entry in value)
    if kind == NAMES:
        return isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, Real if kind == NUMBER else Integral)


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, Real):
        return "a whole number" if isinstance(value, Integral) else "a number"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "text" if isinstance(value, str) else f"a {type(value).__name__}"
