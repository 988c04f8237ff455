# SPDX-License-Identifier: Apache-2.0
"""Every measured figure of the documents, written from the JSON file that it comes from.

python -m benchmarks.render_docs

A document holds sections between ``<!-- results/NAME.json -->`` and ``<!-- end -->``. What stands there is made here,
by one function for each file, and ends with the SHA-256 of the file: a figure that is changed in the text or in the
file, shown or not, is found by ``tests/test_readme.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from monai_cadp.cli.audit import tables as audit_tables
from monai_cadp.studies.attack_table import attack_table

__all__ = ["DOCUMENTS", "RENDERED", "rendered", "section_names"]

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/AUDIT.md", "docs/benchmarks.md")
SECTION = re.compile(r"(?<=<!-- results/)([\w/]+\.json)( -->\n)(.*?)(?=<!-- end -->)", flags=re.DOTALL)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown; None is an empty cell."""
    cells = [columns, *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    head, *lines = ("| " + " | ".join(line) + " |" for line in cells)
    return "\n".join([head, "|" + "---|" * len(columns), *lines])


def paragraphs(*parts: str) -> str:
    """Return sentences, in lines of at most 120 characters, and tables below each other."""
    return "\n\n".join(part if part.startswith("|") else fill(part, 120) for part in parts)


def fixed(value: float | None, digits: int) -> str | None:
    """Return a number with so many digits, and 0 without a sign."""
    return None if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def with_interval(figure: dict[str, Any], digits: int) -> str:
    """Return an estimate with its interval."""
    low, high = figure["interval"]
    return f"{fixed(figure['value'], digits)} ({fixed(low, digits)} to {fixed(high, digits)})"


def short(value: float | None) -> str | None:
    """Return a number with the digits that it needs."""
    return None if value is None else f"{value:g}"


def cores(result: dict[str, Any]) -> str:
    """Say on how many cores something was measured."""
    return "1 core" if result["threads"] == 1 else f"{result['threads']} cores"


def named(result: dict[str, Any], key: str) -> str:
    """Return the values that rows have, each once."""
    return " and ".join(f"{value:g}" for value in dict.fromkeys(row[key] for row in result["rows"]))


def chest_xray(result: dict[str, Any]) -> str:
    """How releases of chest films look, and what they keep."""
    order = sorted(
        result["rows"], key=lambda row: (row["method"] != "real films", row["epsilon"] != 0, -(row["epsilon"] or 0))
    )
    rows = [
        [
            row["method"].split(",")[0],
            short(row["epsilon"]),
            fixed(row["distance"], 2),
            *(fixed(row[observer], 3) for observer in ("spectrum", "intensity", "anatomy")),
            fixed(row["distance, half size"], 2),
            fixed(row.get("content kept"), 2),
        ]
        for row in order
    ]
    columns = ["what", "epsilon", "distance", "spectrum", "intensity", "anatomy", "distance at 64 x 64", "content kept"]
    nearest = result["nearest_training_film"]["samples_to_train_over_held_out_to_train"]
    aucs = {name: figure["value"] for name, figure in result["membership_auc_by_likelihood"].items()}
    whole, part = aucs.pop("the whole film"), max(aucs, key=lambda name: aucs[name])
    most, part = aucs[part], "the coarse image" if part == "coarse image" else f"the {part}"
    releases = result.get("releases_whose_content_is_averaged", 1)
    averaged = f"; the content kept is the mean over {releases} releases" if releases > 1 else ""
    return paragraphs(
        f"{result['films']} films of {result['patients']} patients whom the network has not seen{averaged}:",
        markdown_table(columns, rows),
        f"The distance of a sample to the nearest training film is {nearest:.2f} times that of a held-out film. "
        f"Likelihoods tell films of the training from others with an AUC of {whole:.2f}, those of {part} alone with "
        f"{most:.2f}: that is what the network tells, and no guarantee of a release covers it.",
        *_utility_of_films(result),
    )


def _utility_of_films(result: dict[str, Any]) -> list[str]:
    """What classifiers reach on the films, where some were trained."""
    measured = {
        figure: result.get(f"{figure}_on_originals_of_a_classifier_trained_on") for figure in ("auc", "accuracy")
    }
    found = {figure: of_sets for figure, of_sets in measured.items() if of_sets is not None}
    if not found:
        return []
    sets = next(iter(found.values()))
    names = {"auc": "AUC", "accuracy": "accuracy"}
    rows = [[name, *(with_interval(of_sets[name], 3) for of_sets in found.values())] for name in sets]
    return [
        "Classifiers of pneumonia that learnt from the training films or their releases, on these originals, with "
        "intervals of 95 % over patients:",
        markdown_table(["learnt from", *(names[figure] for figure in found)], rows),
    ]


def reidentification(result: dict[str, Any]) -> str:
    """Whether releases of chest films tell who the patient is."""
    ways = [(f"{way}, {what}", way, what) for way in ("another film", "the film itself") for what in ("top 1", "AUC")]
    rows = [
        [
            row["method"].split(", epsilon")[0],
            short(row["epsilon"]),
            *(with_interval(row[key], 3 if what == "top 1" else 2) for key, _, what in ways),
            fixed(row["content kept"], 2),
        ]
        for row in result["rows"]
    ]
    guess = {way: result["rows"][0][f"{way}, guess"] for _, way, _ in ways}
    trade = [
        [
            row["directions"],
            short(row["epsilon"]),
            fixed(row["content kept"], 2),
            *(fixed(row[key], 3 if what == "top 1" else 2) for key, _, what in ways),
        ]
        for row in result["trade"]
    ]
    columns = [key for key, _, _ in ways]
    return paragraphs(
        f"{result['films']} films of {result['patients']} patients, of whom {result['patients with several films']} "
        f"have several. The best of three attackers each, with intervals of 95 % over patients; guessing finds another "
        f"film in {guess['another film']:.3f}, and the film itself in {guess['the film itself']:.3f}:",
        markdown_table(["what", "epsilon", *columns, "content kept"], rows),
        "What is kept and what is given away, over epsilon and the number of directions of the content basis, by the "
        "attacker without training:",
        markdown_table(["directions", "epsilon", "content kept", *columns], trade),
    )


def set_of_patients(result: dict[str, Any]) -> str:
    """What films keep and give away that are released for the epsilon of a whole set."""
    ways = [(f"{way}, {what}", what) for way in ("another film", "the film itself") for what in ("top 1", "AUC")]
    rows = [
        [
            row["method"],
            short(row["epsilon"]),
            fixed(row["content kept"], 2),
            with_interval(row["p/o AUC"], 3),
            *(with_interval(row[key], 3 if what == "top 1" else 2) for key, what in ways),
        ]
        for row in result["rows"]
    ]
    chosen, releases = result["set"], result["releases_whose_content_is_averaged"]
    return paragraphs(
        f"For epsilon {chosen['epsilon']:g} of a set of {chosen['patients']} patients (delta {chosen['delta']:g}) a "
        f"single film has epsilon {chosen['epsilon_of_a_film']:.2f}. {result['films']} films of {result['patients']} "
        f"patients, released by that mechanism; the content kept is the mean over {releases} releases, the AUC that of "
        f"{result['classifiers_of_each_set']} classifiers of pneumonia on these originals, and the last four columns "
        "are the best of three attackers each, who know which release is whose; intervals of 95 % over patients:",
        markdown_table(["what", "epsilon of a film", "content kept", "p/o AUC", *(key for key, _ in ways)], rows),
    )


def nih_attackers(result: dict[str, Any]) -> str:
    """Every attacker of a study on every method, beside the most that epsilon allows."""
    found = attack_table(result["variants"], result["people_are_known"])
    assert found is not None
    columns = list(dict.fromkeys(name for row in found.rows for name in row))
    return paragraphs(
        found.text, markdown_table(columns, [[row.get(name, "") for name in columns] for row in found.rows])
    )


def hippocampus(result: dict[str, Any]) -> str:
    """How releases of hippocampi look, what their masks measure, and what they keep."""
    sizes = {row["method"]: row for row in result["label_volumes"]}
    rows = [
        [
            row["method"],
            short(row["epsilon"]),
            fixed(row["distance"], 2),
            *(fixed(row[observer], 3) for observer in ("spectrum", "intensity", "anatomy")),
            fixed(sizes[row["method"]]["both, ml"], 2),
            fixed(sizes[row["method"]]["both, deviation"], 2),
            *(fixed(row.get(f"volume_{label}"), 2) for label in ("1", "2", "all")),
        ]
        for row in result["rows"][::-1]
    ]
    columns = ["what", "epsilon", "distance", "spectrum", "intensity", "anatomy", "hippocampus, ml", "deviation"]
    drawn, real = (result["pieces_per_label"][name] for name in ("prior samples", "real volumes"))
    unets = {
        "that learns to segment from as many volumes, tested on the real ones": "trained on",
        "that has learnt from originals, tested on releases and their masks": "tested on",
    }
    figures = ("on_originals_of_a_unet_trained_on", "of_a_unet_trained_on_originals_on")
    dices = [result.get(f"dice_{figure}") for figure in figures]
    return paragraphs(
        f"{result['volumes']} volumes that the network has not seen; it learnt from {result['training_volumes']}:",
        markdown_table([*columns, "anterior volume kept", "posterior", "both"], rows),
        f"Of {drawn['volumes']} prior samples {100 * drawn['in_one_piece']:.0f} % have each label in one piece, and "
        f"{drawn['with_more_than_two']} have one in more than two pieces; of the real volumes "
        f"{100 * real['in_one_piece']:.0f} % and {real['with_more_than_two']}.",
        *_other_volumes(result.get("reidentification")),
        *(
            part
            for (what, column), found in zip(unets.items(), dices, strict=True)
            if found
            for part in (
                f"A small U-Net {what}:",
                markdown_table([column, "Dice"], ([name, fixed(one["value"], 3)] for name, one in found.items())),
            )
        ),
    )


def _other_volumes(rows: list[dict[str, Any]] | None) -> list[str]:
    """How patients are found in a gallery of releases by another volume of theirs."""
    if not rows:
        return []
    attackers = ("aligned correlation", "Siamese network")
    columns = [f"{attacker}, {figure}" for attacker in attackers for figure in ("top 1", "AUC")]
    cells = [[row["gallery"], *(with_interval(row[column], 2) for column in columns)] for row in rows]
    return [
        f"{rows[0]['patients with two volumes']} patients have two volumes. How often the most similar volume of a "
        f"gallery is the patient's other one ({rows[0]['guess']:.0%} by chance), and how well pairs of one patient are "
        "told from others, with intervals of 95 % over patients:",
        markdown_table(["gallery", *columns], cells),
    ]


def mutations(result: dict[str, Any]) -> str:
    """How many small faults in the code of the promise tests notice, and those that they do not."""
    sample, survivors = result["sample"], result["survivors"]
    equal = sum(bool(one["equivalent"]) for one in survivors)
    rows = [
        [f"`{one['file']}`:{one['line']}", f"`{one['after'][:60].replace('|', chr(92) + '|')}`", one["why"] or ""]
        for one in survivors
    ]
    return paragraphs(
        f"Of {sample['of']:,} small changes of one statement a random sample of {sample['drawn']} was made, and "
        f"{result['score']:.1%} were noticed. {equal} of the {len(survivors)} others are equivalent to the code as it "
        f"is; without these {result['score_without_equivalent']:.1%} were noticed.",
        markdown_table(["where", "after the change", "why no test notices it"], rows),
    )


def bounded(result: dict[str, Any]) -> str:
    """Whether anything that was drawn is not finite or outside the range."""
    columns = ["images", "not finite", "outside", "lowest", "highest"]
    rows = [
        [row["what"], *(f"{row[name]:,}" for name in columns[:3]), *(fixed(row[name], 2) for name in columns[3:])]
        for row in result["rows"]
    ]
    shifted = "are" if result["latents_of_shifted_films_are_finite"] else "are not all"
    return paragraphs(
        markdown_table(["what", *columns], rows),
        f"Decoding undoes encoding to {result['largest_error_of_the_round_trip']:.0e} of the range. Latents of films "
        f"that are shifted by a thousandth of it {shifted} finite; the largest is "
        f"{result['largest_latent_of_shifted_films']:.1f}.",
    )


def mnist(result: dict[str, Any]) -> str:
    """What a classifier learns from released digits, and what of the content is kept."""
    later = "accuracy_private_to_original_after_2_minutes"
    accuracies = {
        "originals": "accuracy_original_to_original",
        "releases at epsilon 8": "accuracy_private_to_original",
        "prior-only": "accuracy_prior_only_to_original",
        "releases at epsilon 8, network trained for 2 minutes": later,
    }
    features = ["area", "slant", "width", "height", "mean"]
    return paragraphs(
        f"Trained for {result['training_minutes']:g} minutes on {cores(result)}.",
        "A small classifier that learns from 20,000 released training images and is tested on the originals:",
        markdown_table(
            ["trained on", "accuracy on originals"],
            ([name, fixed(result[key], 4)] for name, key in accuracies.items()),
        ),
        "Content: the correlation between original and release *within* a class, over 1,000 images that the network "
        "never saw. Classes are public, so prior-only is the zero line; all epsilons are pure and true.",
        markdown_table(
            ["method", "epsilon", *features, "pixel cosine"],
            (
                [row["method"], short(row["epsilon"]), *(fixed(row[key], 2) for key in (*features, "pixel_cosine"))]
                for row in result["content"]
            ),
        ),
    )


def private_classifier(result: dict[str, Any]) -> str:
    """What a classifier reaches that is trained by DP-SGD."""
    keys = ["epsilon, replace one", "epsilon, add or remove one", "accuracy"]
    rows = ([short(row[keys[0]]), short(row[keys[1]]), fixed(row[keys[2]], 4)] for row in result["rows"])
    return paragraphs(
        f"{result['images']:,} training images, one run each, delta {result['delta']:g}:", markdown_table(keys, rows)
    )


def mnist_dp(result: dict[str, Any]) -> str:
    """What a classifier learns from samples of networks that were trained privately."""
    columns = ["begins with", "epsilon", "epsilon of a replacement", "accuracy", "minutes"]
    rows = (
        [row[columns[0]], *(short(row[key]) for key in columns[1:3]), fixed(row["accuracy"], 4), short(row["minutes"])]
        for row in result["rows"]
    )
    return paragraphs(
        f"At delta {named(result, 'delta')}, on {cores(result)} of a machine that was shared:",
        markdown_table(columns, rows),
    )


def mnist_study(result: dict[str, Any]) -> str:
    """Every method of the MNIST study, what its network tells, and its audits."""

    def value(figures: dict[str, Any], name: str) -> str | None:
        figure = figures.get(name)
        return fixed(figure["value"] if isinstance(figure, dict) else figure, 3)

    def epsilon(row: dict[str, Any]) -> str:
        nominal = "" if row["nominal_epsilon"] is None else f" (nominal {row['nominal_epsilon']:g})"
        return "none" if row["epsilon"] == "infinite" else f"{row['epsilon']:,g}" + nominal

    shown = ["accuracy_p_o", "kept_mean", "reidentification_auc", "reconstruction_success"]
    return paragraphs(
        markdown_table(
            ["method", "epsilon", "p/o", "content kept", "re-identification", "nearest of ten"],
            (
                [row["method"], epsilon(row), *(value(row["figures"], name) for name in shown)]
                for row in result["variants"]
            ),
        ),
        "What the network itself tells of its training images; no guarantee of a release covers that. Both attacks "
        "find the members of a network that was overfitted on purpose:",
        markdown_table(
            ["network", "attack", "AUC", "true positives at 1 % false ones"],
            (
                [row["network"], row["attack"], value(row, "auc"), value(row, "tpr_at_1_percent")]
                for row in result["membership"]
            ),
        ),
        "Attacks from image to image, which bound the true epsilon from below, wrong with a probability of at most "
        "one in a million:",
        markdown_table(
            ["audited", "promised", "measured", "verdict"],
            (
                [row["audited"], short(row["promised"]), fixed(row["measured"], 2), row["verdict"]]
                for row in result["audit"]
            ),
        ),
    )


def brain(result: dict[str, Any]) -> str:
    """What releases of brain volumes are good for, keep, and tell of the patient."""
    features = ["brain volume", "ventricle volume", "asymmetry", "mean"]
    return paragraphs(
        f"The shipped network on {result['patients']} made-up patients whom it has never seen. A small classifier "
        f"learns from the releases of {result['learning']} others who has a lesion, and is tested on originals:",
        markdown_table(
            ["trained on", "AUC on originals"],
            ([row["trained on"], fixed(row["auc"], 3)] for row in result["lesions"]),
        ),
        "Content: the correlation between original and release within a class, on average over "
        f"{result['releases']} releases of each patient.",
        markdown_table(
            ["method", "epsilon", *features],
            (
                [row["method"], short(row["epsilon"]), *(fixed(row[key], 2) for key in features)]
                for row in result["content"]
            ),
        ),
        "Re-identification: a verification network, trained on pairs of one release and one original of another scan, "
        "tells pairs of one patient from pairs of two.",
        markdown_table(
            ["gallery", "epsilon", "AUC", "95 % interval"],
            (
                [
                    row["gallery"],
                    short(row["epsilon"]),
                    fixed(row["auc"], 3),
                    " to ".join(f"{end:.3f}" for end in row["interval"]),
                ]
                for row in result["reidentification"]
            ),
        ),
        "Realism: the Frechet distance of features of the lesion classifier, from those of the originals.",
        markdown_table(
            ["volumes", "distance to originals"],
            ([row["volumes"], fixed(row["distance"], 1)] for row in result["realism"]),
        ),
    )


def tables(result: dict[str, Any]) -> str:
    """What a model learns from released rows, and from made-up ones."""
    measures = {"breast_cancer": ("accuracy", "accuracy"), "diabetes": ("R2", "r2")}
    rows = (
        [table.replace("_", " "), row["rows"], row["promise"], measure, fixed(row[key], 3), fixed(kept, 2)]
        for table, (measure, key) in measures.items()
        for row in result[table]
        for kept in [row.get("kept_mean")]
    )
    return paragraphs(
        f"Means of {result['folds']} folds and {result['draws']} releases, or made-up tables:",
        markdown_table(["table", "rows", "privacy", "measure", "on originals", "content kept"], rows),
    )


def throughput(result: dict[str, Any]) -> str:
    """How fast the network is beside the paper's."""
    rows = (
        [
            row["images"],
            row["task"],
            *(fixed(row[key], 1) for key in ("paper, images/s", "ours, images/s", "ratio")),
            fixed(row["share of the matrix-product rate"], 2),
        ]
        for row in result["rows"]
    )
    return paragraphs(
        f"On {cores(result)}, in batches of {named(result, 'batch')}:",
        markdown_table(
            ["images", "task", "paper, images/s", "here, images/s", "ratio", "share of the rate of matrix products"],
            rows,
        ),
    )


def volumes(result: dict[str, Any]) -> str:
    """Time and memory of single volumes."""
    columns = ["volume", "task", "seconds", "peak memory, GB", "microseconds a voxel", "bytes a voxel"]
    digits = [3, 2, 2, 0]
    rows = (
        [row["volume"], row["task"], *(fixed(row[key], count) for key, count in zip(columns[2:], digits, strict=True))]
        for row in result["rows"]
    )
    return paragraphs(f"On {cores(result)}; the memory is that of the whole process:", markdown_table(columns, rows))


def ledger(result: dict[str, Any]) -> str:
    """What a ledger adds to a release."""
    rows = (
        [
            row["images"],
            fixed(row["plain, ms/image"], 2),
            fixed(row["with a ledger, ms/image"], 2),
            fixed(row["overhead, %"], 1),
            fixed(row["returned, ms/image"], 2),
        ]
        for row in result["rows"]
    )
    return paragraphs(
        f"In batches of {named(result, 'batch')} on {cores(result)}:",
        markdown_table(
            ["images", "without, ms an image", "with, ms an image", "overhead, %", "returned, ms an image"], rows
        ),
    )


def dicomweb_batch(result: dict[str, Any]) -> str:
    """What a batch that was killed again and again has left, on the other archive and in the ledger."""
    kept = [
        ("objects on the other archive", "objects stored"),
        (
            "of them different from each other, and as the release has written them",
            "objects as the release has written them",
        ),
        ("releases in the ledger", "releases in the ledger"),
        ("patients who spent the budget of one release", "patients who spent the budget of one release"),
        ("problems that the ledger's own check finds", "problems of the ledger"),
        ("canaries in what was sent, said or stored", "canaries in what was sent, said or stored"),
        ("canaries in the originals, as a control", "canaries in the originals"),
    ]
    of_command = [row for row in result["attempts"] if row["end"] == "killed"]
    moments = ", ".join(
        f"{sum(row['killed'].endswith(what) for row in of_command)} times while it {past}"
        for what, past in {"fetches": "fetched", "releases": "released", "stores": "stored"}.items()
    )
    return paragraphs(
        f"{result['patients']:,} patients with a film of {result['image'].replace('x', ' x ')} each; the command was "
        f"killed {result['kills of the command']} times ({moments}), and a server {result['kills of a server']} times. "
        f"{result['canaries']:,} names, identifiers, dates and rows of pixels were looked for in "
        f"{result['requests to the other archive']:,} requests of {fixed(result['megabytes sent'], 1)} MB:",
        markdown_table(["what", "number"], [[name, f"{result[key]:,}"] for name, key in kept]),
    )


def overheads(result: dict[str, Any]) -> str:
    """What it costs to look at all weights before a guarantee is stated, and to draw noise from a secure source."""
    columns = ["images", "release, ms", "looking at the weights, ms", "cryptographic noise, ms", "torch's noise, ms"]
    shares = ["share of the weights", "share of the noise"]
    rows = (
        [row["images"], *(fixed(row[key], 1) for key in columns[1:]), *(f"{row[key]:.1%}" for key in shares)]
        for row in result["rows"]
    )
    return paragraphs(f"On {cores(result)}:", markdown_table([*columns, *shares], rows))


def repeated_lines(result: dict[str, Any]) -> str:
    """How many lines of the configurations stand in another place, too."""
    columns = list(result["rows"][0])
    return markdown_table(columns, ([str(row[column]) for column in columns] for row in result["rows"]))


def memory(result: dict[str, Any]) -> str:
    """What reversible training saves."""
    batches = ", ".join(
        f"{batch['images']} of {' x '.join(map(str, batch['sizes']))} in {kind}"
        for kind, batch in result["batches"].items()
    )
    rows = (
        [
            row["images"],
            row["couplings a level"],
            fixed(row["stored, GB"], 2),
            fixed(row["recomputed, GB"], 2),
            row["memory"],
            fixed(row["time"], 2),
        ]
        for row in result["rows"]
    )
    return paragraphs(
        f"Images in a batch: {batches}; a process each, on {cores(result)}.",
        markdown_table(["images", "couplings a level", "stored, GB", "recomputed, GB", "memory", "time"], rows),
    )


def header_fuzz(result: dict[str, Any]) -> str:
    """How many values of headers reached a release."""
    caught = {True: "caught", False: "missed"}
    rows = (
        [row["originals"], row["files"], f"{row['values']:,}", row["through"], caught[row["control caught"]]]
        for row in result["by_format"]
    )
    return paragraphs(
        f"{result['values']:,} values in {result['seconds']} seconds, {result['through']} came through:",
        markdown_table(["originals", "files", "values", "came through", "negative control"], rows),
    )


def reading(result: dict[str, Any]) -> str:
    """Where the markers of a phantom come to lie, and what is refused."""
    columns = ["format", "variants", "read", "refused"]
    rows = (
        [*(row[column] for column in columns), fixed(row["largest error, voxels"], 2)] for row in result["by_format"]
    )
    tilts = "; ".join(f"{name}: {value:.4f}" for name, value in result["correlation_of_tilts"].items())
    return paragraphs(
        f"{result['variants']} variants, of which {len(result['not as asked'])} are not as required:",
        markdown_table([*columns, "largest error, voxels"], rows),
        f"Correlation of what was read with the phantom at the voxels of the grid: at least "
        f"{result['least_correlation']:.4f} ({tilts}).",
    )


def audit_training(result: dict[str, Any]) -> str:
    """What canaries show of private training, and of trainings that break their promise."""

    def rows(audits: Sequence[dict[str, Any]], verdicts: dict[bool, str]) -> list[list[object]]:
        return [
            [
                audit["name"],
                short(audit["epsilon"]),
                fixed(audit["measured"], 2),
                fixed(audit["one_run"], 2),
                f"{audit['canaries']:,}",
                verdicts[audit["contradicted"]],
            ]
            for audit in audits
        ]

    columns = ["claimed", "measured", "by one run", "canaries", "verdict"]
    return paragraphs(
        markdown_table(["audited", *columns], rows(result["audits"], {False: "kept", True: "contradicted"})),
        markdown_table(
            ["negative control", *columns], rows(result["negative_controls"], {False: "missed", True: "caught"})
        ),
    )


def audit(result: dict[str, Any]) -> str:
    """The tables that the audit prints."""
    return f"```text\n{audit_tables(result)}\n```"


RENDERED: dict[str, Callable[[dict[str, Any]], str]] = {
    "audit.json": audit,
    "audit_training.json": audit_training,
    "bounded.json": bounded,
    "brain.json": brain,
    "chest_xray.json": chest_xray,
    "chest_xray_693.json": chest_xray,
    "chest_xray_693_declared.json": chest_xray,
    "chest_xray_kermany.json": chest_xray,
    "chest_xray_kermany_306.json": chest_xray,
    "chest_xray_693_utility.json": lambda result: paragraphs(*_utility_of_films(result)),
    "chest_xray_kermany_utility.json": lambda result: paragraphs(*_utility_of_films(result)),
    "dicomweb_batch.json": dicomweb_batch,
    "header_fuzz.json": header_fuzz,
    "hippocampus.json": hippocampus,
    "ledger.json": ledger,
    "memory.json": memory,
    "mnist.json": mnist,
    "mnist_dp.json": mnist_dp,
    "mutations.json": mutations,
    "overheads.json": overheads,
    "private_classifier.json": private_classifier,
    "reading.json": reading,
    "reidentification.json": reidentification,
    "repeated_lines.json": repeated_lines,
    "set_of_patients.json": set_of_patients,
    "studies/mnist/results.json": mnist_study,
    "studies/nih_attackers/results.json": nih_attackers,
    "tables.json": tables,
    "throughput.json": throughput,
    "volumes.json": volumes,
}


def section_names(text: str) -> list[str]:
    """Return the results files of which a document shows figures."""
    return [match[1] for match in SECTION.finditer(text)]


def rendered(text: str, results: Path = ROOT / "results") -> str:
    """Return a document with every section as its file has it.

    Args:
        text: the document.
        results: folder of the files.

    Returns:
        The document; the same one if every figure is that of its file.

    Raises:
        KeyError: if a section names a file of which no table is known.
    """

    def section(match: re.Match[str]) -> str:
        content = (results / match[1]).read_bytes()
        shown = RENDERED[match[1]](json.loads(content))
        return f"{match[1]}{match[2]}{shown}\n\n<!-- SHA-256 {hashlib.sha256(content).hexdigest()} -->\n"

    return SECTION.sub(section, text)


def main() -> None:
    """Write the sections of all documents."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name in DOCUMENTS:
        document = ROOT / name
        text = document.read_text(encoding="utf-8")
        document.write_text(rendered(text), encoding="utf-8")
        print(f"{name}: {len(section_names(text))} sections")


if __name__ == "__main__":
    main()
