"""Chapter 27's modules: the file, the server and its clients, the seal, the attacks."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from utils.built import (
    attacks,
    cutting,
    drift,
    envelopes,
    folding,
    load,
    onnx_file,
    saliency,
    sealed,
    served,
)

ROW = np.full(8, 0.5, np.float32).tobytes()


def chain(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "chain.onnx"
    path.write_bytes(onnx_file.onnx_bytes(chain()))
    return path


# ---- the file ----


def test_a_file_is_read_as_it_was_written():
    net, x_BD = chain(), torch.rand(5, 8)
    data = onnx_file.onnx_bytes(net)
    found = onnx_file.read(data)
    assert found["inputs"] == {"x": ["batch", 8]}
    assert found["outputs"] == {"y": ["batch", 3]}
    assert [node[0] for node in found["nodes"]] == ["Gemm", "Relu", "Gemm"]
    want = net(x_BD).detach().numpy()
    np.testing.assert_allclose(onnx_file.run(data, x_BD), want, atol=1e-6)
    for engine in (served.engine, served._torch_engine):
        np.testing.assert_allclose(engine(data)(x_BD.numpy()), want, atol=1e-6)


def test_nodes_that_are_no_chain_are_refused():
    W = np.eye(2, dtype=np.float32)
    graph = onnx_file.field(2, "two that read x")
    for name, out in (("w0", "h"), ("w1", "y")):
        node = onnx_file.node("Gemm", ["x", name], out, transB=1)
        graph += onnx_file.field(1, node) + onnx_file.field(
            5, onnx_file.tensor(name, W)
        )
    for number, name in ((11, "x"), (12, "y")):
        graph += onnx_file.field(number, onnx_file.value_info(name, ["batch", 2]))
    with pytest.raises(ValueError, match="no chain"):
        onnx_file.run(onnx_file.model(graph), W)


def test_a_gemm_of_two_inputs_has_no_bias():
    "As other writers leave it out."
    net, x = nn.Linear(8, 3, bias=False), torch.rand(5, 8)
    graph = onnx_file.field(1, onnx_file.node("Gemm", ["x", "w"], "y", transB=1))
    graph += onnx_file.field(5, onnx_file.tensor("w", net.weight))
    graph += onnx_file.field(11, onnx_file.value_info("x", ["batch", 8]))
    graph += onnx_file.field(12, onnx_file.value_info("y", ["batch", 3]))
    data = onnx_file.model(onnx_file.field(2, "net") + graph)
    want = net(x).detach().numpy()
    np.testing.assert_allclose(onnx_file.run(data, x), want, atol=1e-6)
    for engine in (served.engine, served._torch_engine):
        np.testing.assert_allclose(engine(data)(x.numpy()), want, atol=1e-6)


def test_another_runtime_agrees():
    ort = pytest.importorskip("onnxruntime")
    net = nn.Sequential(
        nn.ReLU(), nn.Linear(8, 4, bias=False), nn.Linear(4, 3), nn.ReLU()
    )
    data = onnx_file.onnx_bytes(net)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    for B in (1, 7, 1797):
        x = torch.randn(B, 8)
        want = net(x).detach().numpy()
        np.testing.assert_allclose(
            session.run(None, {"x": x.numpy()})[0], want, atol=1e-5
        )


def test_without_onnxruntime_the_engine_is_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    net, x = chain(), torch.rand(2, 8)
    got = served.engine(onnx_file.onnx_bytes(net))(x.numpy())
    np.testing.assert_allclose(got, net(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("end", [1, 7, 30, 300, -1])
def test_a_file_that_was_cut_short_is_refused(end):
    with pytest.raises(ValueError):
        onnx_file.read(onnx_file.onnx_bytes(chain())[:end])


def test_a_damaged_file_runs_or_is_refused_in_a_sentence():
    data, rng = onnx_file.onnx_bytes(chain()), np.random.default_rng(0)
    damaged = [sealed.flip(data, bit) for bit in range(8 * 120)]  # nodes and names
    damaged += [sealed.flip(data, int(b)) for b in rng.integers(0, 8 * len(data), 400)]
    damaged += [data[:end] for end in range(len(data))]
    for _ in range(400):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            changed[at : at + rng.integers(4)] = rng.bytes(rng.integers(4))
        damaged.append(bytes(changed))
    refused = 0
    with np.errstate(all="ignore"):
        for bad in damaged:
            try:
                served._sizes(onnx_file.read(bad), onnx_file.steps(bad))
                onnx_file.run(bad, np.zeros((2, 8), np.float32))
            except ValueError as error:
                refused += 1
                assert type(error) is ValueError and len(str(error)) > 15
    assert refused > 1000


def test_numbers_come_back():
    for n in (0, 1, 127, 128, 300, 2**32 + 5, 2**64 - 1):
        data = onnx_file.field(3, n) + onnx_file.field(
            300, b"\x80" * n if n < 400 else b""
        )
        assert onnx_file.fields(data)[0] == (3, n)
        assert onnx_file.fields(data)[1][0] == 300


# ---- folding, cutting, drift ----


def test_all_batch_norms_of_a_chain_are_folded():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False),
        nn.BatchNorm2d(2, affine=False),
    )  # fmt: skip
    net(torch.randn(16, 1, 9, 9))
    net.eval()
    folded, x = folding.fold_all(net), torch.randn(3, 1, 9, 9)
    assert [type(layer) for layer in folded] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert (folded(x) - net(x)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_a_fold_keeps_the_convolutions_dtype_and_device(dtype, bias):
    "The batch norm may well have stayed in float32, and on the CPU."
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3, bias=bias).to(dtype), nn.BatchNorm2d(4).eval()
    bn.running_mean.normal_()
    x = torch.randn(2, 3, 9, 9).to(dtype)
    folded = folding.fold(conv, bn)
    assert {p.dtype for p in folded.parameters()} == {dtype}
    got, want = folded(x), bn(conv(x).float())
    assert got.dtype == dtype and (got.float() - want).abs().max() < 0.05
    moved = folding.fold(conv.to("meta"), bn)
    assert {p.device.type for p in moved.parameters()} == {"meta"}


def test_where_two_cuts_meet():
    device, server, sizes = [1, 9], [1, 1], [900, 100, 4]
    rate = cutting.rate_between(device, server, sizes, 1, 2)
    seconds = cutting.cut_seconds(device, server, sizes, rate)
    assert seconds[1] == pytest.approx(seconds[2])
    assert cutting.best_cut(device, server, sizes, 2 * rate)[0] == 1
    assert cutting.best_cut(device, server, sizes, rate / 2)[0] == 2


def test_ks_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m in ((5, 9), (40, 31), (200, 1)):
        a, b = rng.integers(0, 20, n), rng.integers(3, 25, m)
        assert drift.ks(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
    alike = [drift.ks(rng.random(80), rng.random(150)) for _ in range(2000)]
    share = np.mean(np.array(alike) > drift.ks_limit(80, 150, 0.05))
    assert 0.03 < share < 0.06


# ---- load ----


def test_percentiles_are_numpys_that_occur():
    rng = np.random.default_rng(0)
    for n in (1, 2, 19, 20, 100, 999):
        x = rng.random(n)
        for q in (0.1, 5, 50, 95, 99, 100):
            want = np.percentile(x, q, method="inverted_cdf")
            assert load.percentile(x, q) == want


def test_batches_of_one_are_the_queue():
    due = load.arrivals(2.0, 300, seed=4)
    want = load.queued(due, np.full(300, 0.4))
    for wait in (0.0, 5.0):
        latency, sizes = load.batched(due, lambda rows: 0.4, 1, wait)
        np.testing.assert_allclose(latency, want)
        assert sizes == [1] * 300


def test_a_batch_leaves_when_full_or_when_the_wait_is_over():
    due = [0.0, 4.0, 8.0, 12.0, 100.0]
    latency, sizes = load.batched(due, lambda rows: 1.0, 8, 10.0)
    assert sizes == [3, 1, 1]
    np.testing.assert_allclose(latency, [11, 7, 3, 11, 11])
    latency, sizes = load.batched(due, lambda rows: 1.0, 2, 10.0)
    assert sizes == [2, 2, 1]
    np.testing.assert_allclose(latency, [5, 1, 5, 1, 11])


def test_a_queue_drops_who_has_gone_and_wakes_who_waits():
    async def go():
        queue = served.Queue()
        gone, here = served.Waiting(1), served.Waiting(2)
        gone.answer.cancel()
        queue.put(gone)
        assert await queue.get(timeout=0.01) is None and queue.dropped == 1
        asyncio.get_running_loop().call_later(0.05, queue.put, here)
        assert await queue.get() is here
        for n in range(5):
            queue.put(served.Waiting(n))
        batch = await served.collect(queue, 3, 1.0)
        assert [request.x for request in batch] == [0, 1, 2]
        assert len(await served.collect(queue, 3, 0.01)) == 2

    asyncio.run(asyncio.wait_for(go(), 20))


# ---- the server ----


def gone(pid, seconds=20):
    "Whether a process ends within some seconds."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_bad_and_cancelled_requests_get_their_answer_and_disturb_nobody(file):
    async def go():
        with served.Server(file, limit=4, wait=0.05) as server:
            asked = asyncio.ensure_future(
                load.offer(server.port, load.arrivals(100, 60), [ROW])
            )
            bad = [
                (b"", "/", 400, "send 8 float32 numbers"),
                (b"x" * 33, "/", 413, "32 bytes are right"),
                (b"x" * 3_000_000, "/", 413, "32 bytes are right"),
                (b"\xff" * 32, "/", 400, "finite"),
                (ROW, "/9", 404, "layers begin at"),
                (ROW, "/nobody", 404, "POST 32 bytes to /"),
            ]
            for body, path, status, words in bad:
                code, told = await load.request(server.port, body, path)
                assert code == status and words in json.loads(told)["error"]
            code, told = await load.request(server.port, ROW, method="DELETE")
            assert code == 405 and "POST" in json.loads(told)["error"]
            for _ in range(3):  # clients that hang up while they wait
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\n" + ROW
                )
                await writer.drain()
                await load._close(writer)
            for _ in range(3):  # and some that never finish their request
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"POST / HTTP/1.1\r\nContent-Length: 32\r\n\r\nabc")
                await writer.drain()
                await load._close(writer)
            answers = await asked
            state = json.loads((await load.request(server.port, method="GET"))[1])
        assert {answer.status for answer in answers} == {200}
        assert {answer.json["label"] for answer in answers} == {
            chain()(torch.full((1, 8), 0.5)).argmax().item()
        }
        assert state["pid"] != os.getpid() and state["refused"] >= 5
        assert all(a.done > a.sent >= a.due - 1e-3 for a in answers)
        with pytest.raises(OSError):
            await load.request(server.port, ROW)
        assert server.process.returncode == 0

    asyncio.run(asyncio.wait_for(go(), 60))


def greeting_app(word):
    "An application of somebody else's, as chapter 28 brings one."
    from tornado.web import Application, RequestHandler

    class Hello(RequestHandler):
        def post(self):
            self.write(word(self.request.body.decode()))

    return Application([("/", Hello)])


def test_any_application_can_be_served():
    async def go():
        app = "tests.test_deployment:greeting_app"
        with served.Server(
            app=app, options={"word": lambda name: f"hi {name}"}
        ) as server:
            return await load.request(server.port, b"you")

    assert asyncio.run(asyncio.wait_for(go(), 60)) == (200, b"hi you")


async def noisy(queue, limit, wait):
    print("x" * 100_000)
    return [await queue.get()]


async def broken(queue, limit, wait):
    await queue.get()
    raise NameError("mine")


def test_a_server_whose_batcher_prints_goes_on(file):
    async def go():
        with served.Server(file, collect=noisy) as server:
            return await load.offer(server.port, np.zeros(8), [ROW])

    answers = asyncio.run(asyncio.wait_for(go(), 60))
    assert [answer.status for answer in answers] == [200] * 8


def test_a_server_that_ended_by_itself_says_why(file):
    async def go():
        with served.Server(file, collect=broken) as server:
            await load.offer(server.port, np.zeros(1), [ROW])
            server.process.wait(20)

    with pytest.raises(RuntimeError, match="ended by itself, code 1: NameError: mine"):
        asyncio.run(asyncio.wait_for(go(), 60))


def test_what_layer_2_needs_can_be_sent_to_layer_2(file):
    async def go():
        with served.Server(file) as server:
            net, x = chain(), torch.full((1, 8), 0.5)
            for k in range(4):
                with torch.no_grad():
                    body = net[:k](x).numpy().tobytes()
                status, told = await load.request(server.port, body, f"/{k}")
                want = net(x).detach().numpy()[0]
                assert status == 200
                np.testing.assert_allclose(json.loads(told)["logits"], want, atol=1e-6)

    asyncio.run(asyncio.wait_for(go(), 60))


def test_a_link_keeps_its_rate(file):
    async def go():
        with served.Server(file) as server:
            await load.request(server.port, b"x" * 4000)
            began = time.perf_counter()
            await load.request(server.port, b"x" * 20_000, link=load.Link(50_000))
            return time.perf_counter() - began

    assert asyncio.run(asyncio.wait_for(go(), 60)) >= 0.39


def test_a_server_ends_when_its_block_raises(file):
    with contextlib.suppress(KeyboardInterrupt), served.Server(file) as server:
        raise KeyboardInterrupt
    assert server.process.returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="a kill of its own kind")
def test_a_server_ends_when_its_parent_is_killed(file):
    code = (
        "import sys, time; from utils.built import served\n"
        "with served.Server(sys.argv[1]) as server:\n"
        "    print(server.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, cwd=served.ROOT
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_server_that_cannot_start_says_why(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_file.onnx_bytes(chain())[:-40])
    with pytest.raises(RuntimeError, match=r"did not start: .*cut short"):
        served.Server(broken).__enter__()


# ---- the seal ----


def test_200_flipped_bits_are_refused(tmp_path):
    data = onnx_file.onnx_bytes(chain())
    (tmp_path / "net.onnx").write_bytes(data)
    (tmp_path / "card.txt").write_text("reads digits")
    key = bytes(range(32))
    listed = sealed.manifest(tmp_path)
    code = sealed.mac(listed, key)
    held = sealed.load_verified(tmp_path, listed, code, key)
    assert held["net.onnx"] == data
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 200):
        (tmp_path / "net.onnx").write_bytes(sealed.flip(data, int(bit)))
        assert sealed.verify(tmp_path, listed, code, key) == ["net.onnx"]
    with pytest.raises(ValueError, match=r"not loaded.*net\.onnx"):
        sealed.load_verified(tmp_path, listed, code, key)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_link_in_place_of_a_file_is_refused(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    (folder / "a").write_bytes(b"weights")
    other.write_bytes(b"weights")
    key = bytes(32)
    listed = sealed.manifest(folder)
    code = sealed.mac(listed, key)
    (folder / "a").unlink()
    try:
        (folder / "a").symlink_to(other)
    except OSError:
        pytest.skip("links are not allowed here")
    assert sealed.verify(folder, listed, code, key) == ["a"]
    with pytest.raises(ValueError, match=r"not loaded.*: a$"):
        sealed.load_verified(folder, listed, code, key)
    with pytest.raises(ValueError, match="'a' is a link or no file: it is not sealed"):
        sealed.mac(sealed.manifest(folder), key)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
@pytest.mark.parametrize("kind", ["file", "folder", "nowhere"])
def test_a_link_that_was_added_is_told(tmp_path, kind):
    folder, key = tmp_path / "folder", bytes(32)
    folder.mkdir()
    (folder / "a").write_bytes(b"weights")
    listed = sealed.manifest(folder)
    code = sealed.mac(listed, key)
    to = {"file": __file__, "folder": os.path.dirname(__file__), "nowhere": "no such"}
    try:
        (folder / "b").symlink_to(to[kind])
    except OSError:
        pytest.skip("links are not allowed here")
    assert sealed.verify(folder, listed, code, key) == ["b"]
    with pytest.raises(ValueError, match="'b' is a link"):
        sealed.mac(sealed.manifest(folder), key)


def test_a_file_that_the_manifest_does_not_name_is_told(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    listed, key = sealed.manifest(tmp_path), bytes(32)
    code = sealed.mac(listed, key)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.py").write_bytes(b"")
    assert sealed.verify(tmp_path, listed, code, key) == ["more/b.py"]
    with pytest.raises(ValueError, match=r"not loaded.*: more/b\.py$"):
        sealed.load_verified(tmp_path, listed, code, key)


def test_envelopes_open_what_they_sealed_and_nothing_else():
    data = b"weights" * 100
    for protection in envelopes.here().values():
        sent = protection.seal(data)
        assert protection.open(*sent) == data
        for bit in np.random.default_rng(0).integers(0, 8 * len(sent[0]), 200):
            with pytest.raises(envelopes.Refused):
                protection.open(sealed.flip(sent[0], int(bit)), sent[1])


def test_without_cryptography_two_are_left(monkeypatch):
    monkeypatch.setattr(envelopes, "find_spec", lambda name: None)
    assert list(envelopes.here()) == ["checksum", "MAC"]


def test_a_signature_belongs_to_one_manifest():
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private = ed25519.Ed25519PrivateKey.generate()
    signature = sealed.sign({"a": "1"}, private)
    assert sealed.signed({"a": "1"}, signature, private.public_key())
    assert not sealed.signed({"a": "2"}, signature, private.public_key())
    with pytest.raises(ValueError, match="leaves the folder"):
        sealed.sign({"../a": "1"}, private)


# ---- attacks and reasons ----


def test_an_attack_stays_within_its_bounds_and_hurts():
    net, x_BD = chain(), torch.rand(40, 8)
    y_B = net(x_BD).argmax(1)
    one = attacks.fgsm(net, x_BD, y_B, 0.1)
    many = attacks.pgd(net, x_BD, y_B, 0.1, 10, 0.03, attacks.noise(x_BD, 0.1))
    for found in (one, many):
        assert (found - x_BD).abs().max() <= 0.1 + 1e-6
        assert found.min() >= 0 and found.max() <= 1
        assert nn.functional.cross_entropy(
            net(found), y_B
        ) > nn.functional.cross_entropy(net(x_BD), y_B)
    assert all(p.grad is None for p in net.parameters())


def test_every_batch_is_attacked_from_noise_of_its_own(monkeypatch):
    drawn, noise = [], attacks.noise

    def seen(x_BD, eps, seed=0):
        start_BD = noise(x_BD, eps, seed)
        drawn.append((start_BD - x_BD).numpy().tobytes())
        return start_BD

    monkeypatch.setattr(attacks, "noise", seen)
    x_ND, y_N = torch.full((384, 8), 0.5), torch.zeros(384, dtype=torch.long)
    runs = [attacks.strengthen(chain(), x_ND, y_N, epochs=2, steps=1) for _ in range(2)]
    assert len(drawn) == 12 and len(set(drawn)) == 6  # 3 batches, 2 epochs; again alike
    assert torch.equal(runs[0][0].weight, runs[1][0].weight)


def test_training_against_attacks_helps():
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.rand(512, 8, generator=generator)
    y_N = (x_ND[:, :4].sum(1) > x_ND[:, 4:].sum(1)).long()

    def score(net):
        hit = attacks.fgsm(net, x_ND, y_N, 0.1)
        return (net(hit).argmax(1) == y_N).float().mean().item()

    plain = attacks.strengthen(chain(), x_ND, y_N, eps=1e-6, epochs=5)
    strong = attacks.strengthen(chain(), x_ND, y_N, eps=0.1, epochs=5)
    assert score(strong) > score(plain) - 0.05


def test_the_highest_pixels_are_made_black():
    x = torch.arange(1.0, 7).reshape(2, 3)
    got = saliency.without(x, torch.tensor([[3.0, 1, 2], [0, 0, 9]]), 1)
    assert got.tolist() == [[0, 2, 3], [4, 5, 0]]
