# SPDX-License-Identifier: Apache-2.0
"""Whether anything that is drawn, of thousands of samples and releases, is not finite or leaves the range of images.

python -m benchmarks.bounded --out results/bounded.json

The network is the shipped one of chest X-rays, or a ``--checkpoint``; its inputs are the sample films of the bundle,
over and over. Beside the draws: how exactly decoding undoes encoding, and whether films are encoded that were shifted
by a thousandth of the range, clipped at neither end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.chest_xray import SHIPPED, sample_films
from benchmarks.report import print_table, write_json
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release import Privatizer
from monai_cadp.release.checkpoint import load_model

EPSILON = 8.0
BATCH_SIZE = 16
SHIFT = 1e-3


def counted(name: str, batches: Iterable[Callable[[], Tensor]]) -> dict[str, object]:
    """Return how many images of batches are not finite or outside 0 to 1, and their extremes."""
    images = broken = outside = 0
    low, high = float("inf"), float("-inf")
    for batch in batches:
        x = batch().flatten(1)
        finite = x.isfinite().all(1)
        images, broken = images + len(x), broken + int((~finite).sum())
        outside += int(((x < 0) | (x > 1)).any(1).sum())
        low, high = min([low, *x[finite].min(1).values.tolist()]), max([high, *x[finite].max(1).values.tolist()])
    return {"what": name, "images": images, "not finite": broken, "outside": outside, "lowest": low, "highest": high}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--number", type=int, default=10_000, help="of prior samples, and of releases")
    parser.add_argument("--out", type=Path, default=Path("results/bounded.json"))
    options = parser.parse_args()

    model = load_model(options.checkpoint)
    network = model.network.eval()
    films, labels = sample_films(network.spatial_shape)
    space = network.condition_space
    conditions = labels if space.num_classes else None
    privatizer = Privatizer(model, SubsetSelection(EPSILON))
    sizes = [len(part) for part in torch.arange(options.number).split(BATCH_SIZE)]

    def prior(size: int) -> Tensor:
        return network.draw(torch.randn(size, network.num_latents), space.sample(size))

    def unclipped(size: int) -> Tensor:
        return network.unfiltered(torch.randn(size, network.num_latents), space.sample(size))

    def released(start: int, size: int) -> Tensor:
        chosen = torch.arange(start, start + size) % len(films)
        return privatizer(films[chosen], None if conditions is None else conditions[chosen])

    with torch.inference_mode():
        rows = [
            counted("prior samples", (lambda size=size: prior(size) for size in tqdm(sizes, "prior samples"))),
            # The others are clipped to the range as they are drawn; of these it is said how far they would leave it.
            counted(
                "prior samples before clipping",
                (lambda size=size: unclipped(size) for size in tqdm(sizes[: len(sizes) // 10 + 1], "unclipped")),
            ),
            counted(
                f"releases, epsilon {EPSILON:g}",
                (
                    lambda place=place, size=size: released(place * BATCH_SIZE, size)
                    for place, size in enumerate(tqdm(sizes, "releases"))
                ),
            ),
        ]
        print_table(rows)
        latents, _ = network.encode(films, conditions)
        error = float((network.decode(latents, conditions) - films).abs().max())
        shifted = [network.encode(films + step, conditions)[0] for step in (-SHIFT, SHIFT)]
    result = {
        "rows": rows,
        "films": len(films),
        "size": list(network.spatial_shape),
        "largest_error_of_the_round_trip": error,
        "latents_of_shifted_films_are_finite": all(bool(z.isfinite().all()) for z in shifted),
        "largest_latent_of_shifted_films": max(float(z.abs().max()) for z in shifted),
    }
    print(
        f"\nround trip: {error:.1e} of the range; largest latent of shifted films: "
        f"{result['largest_latent_of_shifted_films']:.1f}"
    )
    write_json(options.out, result)


if __name__ == "__main__":
    main()
