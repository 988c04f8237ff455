# SPDX-License-Identifier: Apache-2.0
"""Train one network on the images of several sites, in NVFlare's simulator on this machine.

pip install nvflare
python examples/federated/simulate.py --network public.pt --dataset_dirs one.npz other.npz --output runs/federated \
    --spatial_shape 28 28 --epsilon 8 --delta 1e-5

Every site has a process of its own and its own folder; the server gets weights. With a budget, each site's guarantee
lies in its folder, and covers all that it has sent.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from averaging import NetworkAveraging
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner

HERE = Path(__file__).parent


def main() -> None:
    """Run the simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=HERE.parents[1] / "bundles" / "cadp_2d")
    parser.add_argument("--network", type=Path, required=True, help="checkpoint of a network of public images")
    parser.add_argument("--dataset_dirs", type=Path, nargs="+", required=True, help="images of each site")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--local_epochs", type=int, default=2, help="of one round")
    parser.add_argument("--spatial_shape", type=int, nargs="+", required=True)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--epsilon", type=float, help="budget of the people of each site; none for no privacy")
    parser.add_argument("--delta", type=float, help="of the same")
    options = parser.parse_args()
    output, network = options.output.resolve(), str(options.network.resolve())
    output.mkdir(parents=True, exist_ok=True)
    job = FedJob(name="federated_flow")
    count = len(options.dataset_dirs)
    job.to_server(NetworkAveraging(network, str(output / "averaged.pt"), count, options.rounds))
    for number, folder in enumerate(options.dataset_dirs, 1):
        variable = f"IMAGES_OF_SITE_{number}"
        os.environ[variable] = str(folder.resolve())
        given = ["--bundle", options.bundle.resolve(), "--network", network, "--images_variable", variable]
        given += ["--state", output / f"site-{number}", "--max_epochs", options.rounds * options.local_epochs]
        given += ["--local_epochs", options.local_epochs, "--batch_size", options.batch_size]
        given += ["--spatial_shape", *options.spatial_shape]
        if options.epsilon is not None:
            given += ["--epsilon", options.epsilon, "--delta", options.delta]
        arguments = shlex.join(str(argument) for argument in given)
        runner = ScriptRunner(str(HERE / "site.py"), script_args=arguments, framework=FrameworkType.NUMPY)
        job.to(runner, f"site-{number}")
    job.simulator_run(str(output / "simulator"))


if __name__ == "__main__":
    main()
