"""FlashAttention-3 as a peer of interleave.py, by a library with this C interface (docs/notes/07 says how one was made):

    int fa3_forward(q, k, v, out, lse, semaphore, batch, seq_q, seq_k, heads, kv_heads, dim, causal, stream)
    int fa3_backward(q, k, v, out, dout, lse, dq, dk, dv, workspace, batch, ..., causal, stream)
    int64 fa3_forward_semaphore_bytes(batch), fa3_backward_workspace_bytes(batch, seq_q, seq_k, heads, kv_heads, dim, causal)
    int fa3_has(dim)     bit 0: forward, bit 2: backward

bf16 [batch, seq, heads, dim], contiguous; lse float [batch, heads, seq]. 0: done.
"""
import ctypes as c

import torch


class Fa3:
    def __init__(self, path):
        self.lib = c.CDLL(path)
        self.lib.fa3_forward_semaphore_bytes.restype = c.c_int64
        self.lib.fa3_backward_workspace_bytes.restype = c.c_int64

    def has(self, case, backward):
        same = case.q.shape[3] == case.v.shape[3]
        return same and bool(self.lib.fa3_has(case.q.shape[3]) & (4 if backward else 1))

    @staticmethod
    def _sizes(case):
        b, s, h, d = case.q.shape
        return b, s, s, h, case.k.shape[2], d, int(case.causal)

    @staticmethod
    def _call(function, tensors, sizes):
        stream = c.c_void_p(torch.cuda.current_stream().cuda_stream)
        code = function(*(c.c_void_p(t.data_ptr()) for t in tensors), *sizes, stream)
        if code:
            raise RuntimeError(f"FlashAttention-3 answers {code}")

    @staticmethod
    def _bytes(count):
        return torch.zeros(max(count, 1), dtype=torch.uint8, device="cuda")

    def forward(self, case):
        """What makes one call; its output is checked against ours."""
        out, lse = torch.empty_like(case.dout), torch.empty_like(case.lse)
        semaphore = self._bytes(self.lib.fa3_forward_semaphore_bytes(case.q.shape[0]))
        tensors = (case.q, case.k, case.v, out, lse, semaphore)
        work = lambda: self._call(self.lib.fa3_forward, tensors, self._sizes(case))
        work()
        error = (out.float() - case.out.float()).abs().max().item() / out.float().abs().max().item()
        if not error < 0.02:
            raise RuntimeError(f"FlashAttention-3's output differs from ours by {error:.3f} of its largest value")
        return work

    def backward(self, case):
        out, lse = torch.empty_like(case.dout), torch.empty_like(case.lse)
        semaphore = self._bytes(self.lib.fa3_forward_semaphore_bytes(case.q.shape[0]))
        self._call(self.lib.fa3_forward, (case.q, case.k, case.v, out, lse, semaphore), self._sizes(case))
        dq, dk, dv = (torch.empty_like(t) for t in (case.q, case.k, case.v))
        workspace = self._bytes(self.lib.fa3_backward_workspace_bytes(*self._sizes(case)))
        tensors = (case.q, case.k, case.v, out, case.dout, lse, dq, dk, dv, workspace)
        return lambda: self._call(self.lib.fa3_backward, tensors, self._sizes(case))
