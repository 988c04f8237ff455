# SPDX-License-Identifier: Apache-2.0
"""A site of a federation run by NVFlare: trains on its own images, and sends weights.

NVFlare starts it with what the server's job says. Where the images of the site are, it learns from an environment
variable of the site: a job goes through the server, and a path may tell whose images they are.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import nvflare.client as flare
from monai.fl.utils.exchange_object import ExchangeObject

from monai_cadp.engines import FederatedFlowClient


def main() -> None:
    """Take part in a federation until it is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--network", required=True, help="checkpoint of the public network, the same for all sites")
    parser.add_argument("--images_variable", required=True, help="environment variable with the images of this site")
    parser.add_argument("--state", type=Path, required=True, help="folder of what this site keeps")
    parser.add_argument("--max_epochs", type=int, required=True, help="of all rounds together")
    parser.add_argument("--local_epochs", type=int, required=True, help="of one round")
    parser.add_argument("--spatial_shape", type=int, nargs="+", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--epsilon", type=float, help="budget of the people of this site; none for no privacy")
    parser.add_argument("--delta", type=float, help="of the same")
    options = parser.parse_args()
    overlays = ["train"] if options.epsilon is None else ["train", "train_dp"]
    budget = {} if options.epsilon is None else {"epsilon": options.epsilon, "delta": options.delta, "moments": None}
    options.state.mkdir(parents=True, exist_ok=True)
    client = FederatedFlowClient(
        [str(options.bundle / "configs" / f"{name}.yaml") for name in overlays],
        local_epochs=options.local_epochs,
        checkpoint=options.state / "last.pt",
        dataset_dir=os.environ[options.images_variable],
        spatial_shape=options.spatial_shape,
        max_epochs=options.max_epochs,
        batch_size=options.batch_size,
        network={"_target_": "monai_cadp.release.checkpoint.load_network", "path": options.network},
        **budget,
    )
    client.initialize()
    flare.init()
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        client.train(ExchangeObject(weights=received.params, statistics=received.meta or {}))
        sent = client.get_weights()
        meta = {
            "NUM_STEPS_CURRENT_ROUND": sent.statistics["num_executed_iterations"],
            "training_events": sent.statistics["training_events"],
        }
        flare.send(flare.FLModel(params=sent.weights, meta=meta))
    (options.state / "guarantee.json").write_text(json.dumps(client.guarantee()), encoding="utf-8")


if __name__ == "__main__":
    main()
