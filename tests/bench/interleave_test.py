#!/usr/bin/env python3
"""interleave.py with a stand-in for torch: which calls are made on which stream, and what is printed.

    interleave_test.py
"""
import contextlib
import io
import math
import os
import sys
import unittest
from unittest import mock


class Streams:
    """What is current, and whether it is captured."""

    def __init__(self):
        self.current, self.capturing, self.replayed = "default", False, 0

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph, stream):
        assert stream is self.current, "captured on a stream that is not current"
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False

    def new_graph(self):
        def replay():
            self.replayed += 1
        return mock.Mock(replay=replay)


def stand_in(streams):
    torch = mock.MagicMock()
    torch.__version__ = "stand-in"
    torch.cuda.get_device_name.return_value = "none"
    torch.cuda.stream, torch.cuda.graph, torch.cuda.CUDAGraph = streams.stream, streams.graph, streams.new_graph
    torch.cuda.Event.return_value.elapsed_time.return_value = 2.0
    torch.randn.side_effect = lambda *shape, **_: mock.MagicMock(shape=shape)
    return torch


class Interleave(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        self.streams, self.calls = Streams(), []
        self.torch = stand_in(self.streams)
        for name in ("interleave", "annulus_torch", "fa3_peer"):
            sys.modules.pop(name, None)
        modules = {"torch": self.torch, "torch.nn": self.torch.nn, "torch.nn.attention": self.torch.nn.attention,
                   "annulus_torch": mock.MagicMock()}
        with mock.patch.dict(sys.modules, modules):
            import interleave
        interleave.PEERS = {"fa2": "FLASH", "cudnn": "CUDNN"}
        interleave.Case.check = lambda case: None
        self.interleave = interleave
        ours = modules["annulus_torch"].load.return_value.attention.return_value
        ours.forward.side_effect = lambda *_: self.note("ours", "forward")
        ours.backward.side_effect = lambda *_: self.note("ours", "backward")
        interleave.sdpa = lambda peer, *_: self.note(peer, "forward")
        self.torch.autograd.grad.side_effect = self.grad
        self.uncapturable = None

    def note(self, who, what):
        if self.streams.capturing and who == self.uncapturable:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        self.calls.append((who, what, self.streams.current, self.streams.capturing))
        return mock.Mock(who=who, stream=self.streams.current)

    def grad(self, out, inputs, dout, retain_graph=False):
        self.assertIs(out.stream, self.streams.current)  # PyTorch runs it on the stream of its forward
        return self.note(out.who, "backward")

    def run_main(self, *arguments):
        sys.argv = ["interleave.py", "lib", "--shapes", "1,64,2,2,128", "--repeats", "3", *arguments]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.interleave.main()
        rows = [line.split() for line in out.getvalue().splitlines()[2:]]
        return rows, err.getvalue()

    def test_a_line_for_each_pass(self):
        rows, _ = self.run_main()
        self.assertEqual([row[1:3] for row in rows], [["full", "forward"], ["full", "backward"],
                                                      ["causal", "forward"], ["causal", "backward"]])
        self.assertEqual({len(row) for row in rows}, {9})
        self.assertFalse(any(captured for *_, captured in self.calls))

    def test_both_passes_together(self):
        rows, _ = self.run_main("--pass", "together")
        self.assertEqual([row[2] for row in rows], ["together"] * 2)
        last = [call[:2] for call in self.calls[-6:]]  # one repetition
        self.assertEqual(last, [(who, what) for who in ("ours", "fa2", "cudnn") for what in ("forward", "backward")])
        # 7 products of 2 x 64 x 64 x 2 x 128 FLOP in 2 ms are too few for the column: their sum is what is looked at.
        case = self.interleave.Case(mock.MagicMock(), [1, 64, 2, 2, 128, 128], False, "auto")
        self.assertEqual(case.flops["together"], 7 * 2.0 * 64 * 64 * 2 * 128)

    def test_replays(self):
        for which in ("forward", "backward", "together"):
            with self.subTest(which):
                self.calls.clear()
                self.streams.replayed = 0
                rows, err = self.run_main("--pass", which, "--graphs")
                captured = [call for call in self.calls if call[3]]
                self.assertEqual(len(captured), 2 * 3 * (2 if which == "together" else 1))
                self.assertNotIn("default", {stream for _, _, stream, _ in captured})
                self.assertEqual(self.streams.replayed, 2 * 3 * (3 + 3))  # masks, who, warm-up and repeats
                self.assertEqual(err, "")

    def test_a_peer_that_cannot_be_captured_is_nan(self):
        self.uncapturable = "cudnn"
        rows, err = self.run_main("--pass", "backward", "--graphs")
        for row in rows:
            self.assertEqual(row[6:8], ["nan", "nan"])
            self.assertFalse(math.isnan(float(row[5])))
        self.assertIn("cudnn cannot be captured", err)
        self.assertEqual(len(err.splitlines()), 2)
        self.uncapturable = "ours"
        with self.assertRaises(RuntimeError):
            self.run_main("--pass", "backward", "--graphs")


if __name__ == "__main__":
    unittest.main()
