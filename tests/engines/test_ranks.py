# SPDX-License-Identifier: Apache-2.0
"""Two processes with half a batch each are one process with the whole of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from monai_cadp.release.checkpoint import load_network

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader
from monai_cadp.engines import FlowTrainer, GaussianNoise, PrivateFlowTrainer, PrivateMoments
from monai_cadp.handlers import ExportPrivatizer, ProgressBar, TrainingCheckpoint
from monai_cadp.networks import ConditionalINN

torch.set_num_threads(1)
folder, ranks = sys.argv[1], int(sys.argv[2])
if ranks > 1:
    idist.initialize("gloo")
# Those of the first process count.
torch.manual_seed(idist.get_rank())
network = ConditionalINN((), 4, num_classes=2, rank=3, num_couplings=2, width=8)
x = torch.randn(41, 4, generator=torch.Generator().manual_seed(1)).cumsum(1)
items = [{"image": row, "label": torch.tensor(index % 2)} for index, row in enumerate(x)]
if ranks > 1:
    for options in ({"max_minutes": 1.0}, {"private": True}):
        try:
            if "private" in options:
                PrivateFlowTrainer(
                    network, items, epsilon=1.0, delta=1e-5, max_epochs=1, batch_size=8, moments=PrivateMoments(1.0)
                )
            else:
                FlowTrainer(network, DataLoader(items, 8), max_epochs=1, **options)
        except ValueError as error:
            assert "several processes" in str(error)
        else:
            raise AssertionError(options)
# 41 items in batches of 8: the last batch has one, and one of the processes nothing.
loader = DataLoader(items, batch_size=8, shuffle=True)
trainer = FlowTrainer(network, loader, max_epochs=3, learning_rate=0.02, noise=GaussianNoise(0.0))
losses = []
trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
mine = f"{folder}/{ranks}"
handlers = [TrainingCheckpoint(f"{mine}/last.pt"), ExportPrivatizer(f"{mine}/model.pt", progress=False), ProgressBar()]
trainer.attach_all(handlers).run()
torch.save((losses, {n: p.detach() for n, p in network.named_parameters()}), f"{mine}/found-{idist.get_rank()}.pt")
if ranks > 1:
    idist.barrier()
    idist.finalize()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    for ranks in (1, 2):
        (folder / str(ranks)).mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        command = [sys.executable, *launcher, str(folder / "script.py"), str(folder), str(ranks)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_have_the_loss_curve_and_the_weights_of_one(found):
    losses, weights = torch.load(found / "1" / "found-0.pt")
    assert len(losses) == 18
    for rank in range(2):
        other_losses, other_weights = torch.load(found / "2" / f"found-{rank}.pt")
        torch.testing.assert_close(torch.tensor(other_losses), torch.tensor(losses), rtol=1e-4, atol=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(other_weights[name], weight, rtol=1e-3, atol=1e-3)


def test_the_processes_stay_equal_to_the_last_bit(found):
    first, second = (torch.load(found / "2" / f"found-{rank}.pt")[1] for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_of_them_writes_what_one_process_writes(found):
    assert {path.name for path in (found / "2").iterdir()} == {"last.pt", "model.pt", "found-0.pt", "found-1.pt"}
    one, two = (load_network(found / ranks / "model.pt") for ranks in "12")
    x, label = torch.randn(3, 4), torch.tensor([0, 1, 0])
    torch.testing.assert_close(one.log_prob(x, label), two.log_prob(x, label), rtol=1e-2, atol=1e-2)
