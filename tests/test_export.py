"""ONNX files: the same answers as torch, one quiet file that says all about itself, and what is refused."""

import contextlib
import io
import sys

import pytest
import torch

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints
from diffusion_edu.guidance import classifier_free
from diffusion_edu.networks import Classifier, UNet
from diffusion_edu.samplers import ddim, sample
from diffusion_edu.schedules import Cosine, time_grid
from tests.conftest import BUILD, ROOT

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed: ONNX was not tested")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

TINY = {"in_channels": 1, "channels": (8, 8, 16), "num_classes": 10, "embedding": 16}
BUILT = BUILD / "vendor" / "network" / "mnist-unet.onnx"
SOURCE = ROOT / "data" / "checkpoints" / "mnist-unet"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint whose layers all matter: new ones end in zeros."""
    torch.manual_seed(0)
    net = UNet(**TINY)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    facts = {"schedule": checkpoints.describe_schedule(Cosine(s=0.01)), "target": "v", "clip": [-1, 1], "metrics": []}
    path = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(path, net, {"class": "UNet", "arguments": TINY}, dataset={"shape": [1, 28, 28]}, **facts)
    return path


@pytest.fixture(scope="session")
def exported(folder, tmp_path_factory):
    """The file, written once by the command, and what the command said."""
    path, said, complained = tmp_path_factory.mktemp("onnx") / "new" / "net.onnx", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        assert cli.main(["export", "--checkpoint", str(folder), "--out", str(path)]) == 0
    return path, said.getvalue(), complained.getvalue()


def inputs(n):
    g = torch.Generator().manual_seed(n)
    y = torch.randint(0, 11, (n,), generator=g)
    y[-1] = 10  # the null class is always asked for
    return torch.randn(n, 1, 28, 28, generator=g), torch.rand(n, generator=g), y


@pytest.mark.parametrize("n", [1, 2, 7])
def test_it_answers_as_torch_does(folder, exported, n):
    ours, theirs = checkpoints.load(folder), checkpoints.load_onnx(exported[0])
    x, t, y = inputs(n)
    wanted = ours.net(x, t, y)
    # float32 sums in another order; a network that ignored its inputs would be off by far more
    assert float((theirs.net(x, t, y) - wanted).norm() / wanted.norm()) < 1e-4
    if n > 1:
        assert float(wanted.std(dim=0).mean()) > 0.1, "the answers differ"
    torch.testing.assert_close(theirs.net(x, t), ours.net(x, t), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs(x, t, y).x0, ours(x, t, y).x0, atol=1e-3, rtol=1e-3)


def test_a_sampler_cannot_tell_it_from_torch(folder, exported):
    x, _, y = inputs(2)
    results = [
        sample(ddim(classifier_free(denoiser, 2.0), x, time_grid(denoiser.schedule, 4), y=y.clamp(max=9)))
        for denoiser in (checkpoints.load(folder), checkpoints.load_onnx(exported[0]))
    ]
    torch.testing.assert_close(*results, atol=1e-3, rtol=0)


def test_the_file_says_all_about_itself_and_is_whole(folder, exported):
    path, said, _ = exported
    denoiser = checkpoints.load_onnx(path)
    assert (denoiser.schedule, denoiser.target, denoiser.clip) == (Cosine(s=0.01), "v", (-1, 1))
    assert denoiser.net.num_classes == 10 and denoiser.manifest["dataset"]["shape"] == [1, 28, 28]
    assert denoiser.manifest["sha256"] == checkpoints.read_manifest(folder)["sha256"]
    assert [each.name for each in path.parent.iterdir()] == ["net.onnx"], "no second file with weights"
    assert onnx.load(path).opset_import[0].version == 18
    assert said == f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB\n"


def test_the_exporter_is_quiet(exported):
    assert exported[2] == ""


def test_what_the_site_carries_is_the_committed_network():
    if not BUILT.exists():
        pytest.skip("the book is not built: run `make book` first")
    ours, theirs = checkpoints.load(SOURCE), checkpoints.load_onnx(BUILT)
    assert theirs.manifest["sha256"] == ours.manifest["sha256"]
    x, t, y = inputs(3)
    wanted = ours.net(x, t, y)
    assert float((theirs.net(x, t, y) - wanted).norm() / wanted.norm()) < 1e-4


def refusal(capsys, *arguments):
    assert cli.main(["export", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_no_denoiser_is_refused(tmp_path, capsys):
    assert "no checkpoint at" in refusal(capsys, "--checkpoint", tmp_path / "none", "--out", tmp_path / "a.onnx")
    checkpoints.save(tmp_path / "judge", Classifier(), {"class": "Classifier", "arguments": {}})
    message = refusal(capsys, "--checkpoint", tmp_path / "judge", "--out", tmp_path / "a.onnx")
    assert "holds a Classifier, no denoiser" in message
    assert not list(tmp_path.glob("*.onnx"))


def test_a_missing_extra_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = refusal(capsys, "--checkpoint", folder, "--out", tmp_path / "a.onnx")
    assert "needs onnxscript, which is not installed: pip install 'diffusion_edu[export]'" in message
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="needs onnxruntime, which is not installed"):
        checkpoints.load_onnx(tmp_path / "a.onnx")


def test_damaged_and_foreign_files_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="no ONNX file at"):
        checkpoints.load_onnx(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported[0].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"broken\.onnx is damaged or no ONNX file"):
        checkpoints.load_onnx(broken)
    model = onnx.load(exported[0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match=r"no exported denoiser: its metadata lacks schedule, target"):
        checkpoints.load_onnx(tmp_path / "foreign.onnx")


def test_images_of_another_shape_are_refused(exported):
    with pytest.raises(ValueError, match=r"need images \(N, 1, 28, 28\), got \(2, 1, 32, 32\)"):
        checkpoints.load_onnx(exported[0]).net(torch.zeros(2, 1, 32, 32), torch.zeros(2))
