"""Annulus beside PyTorch in one process: annulus_c.h through ctypes, on torch's tensors and stream.

    lib = annulus_torch.load("build/lib/libannulus.so")
    attention = lib.attention(batch, seq, heads, heads_kv, head_dim, torch.bfloat16, causal=True)  # head_dim_v=...
    attention.forward(q, k, v, out, lse)           # [batch, seq, heads, dim] on the GPU
    attention.backward(dout, q, k, v, out, lse, dq, dk, dv)

Over ranks: `annulus_torch.load(path, MPI.COMM_WORLD)` with mpi4py; tensors are then local shards, `seq`
is of all ranks.
"""
import ctypes as c

import torch

FORWARD, BACKWARD = 0, 1
# annulus_c.h's enumerators, in its order
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Error(c.Structure):
    _fields_ = [("status", c.c_int32), ("text", c.c_char * 1020)]


class Problem(c.Structure):
    _fields_ = [("size", c.c_size_t), ("batch", c.c_int64), ("seq", c.c_int64), ("seq_kv", c.c_int64),
                ("heads", c.c_int64), ("heads_kv", c.c_int64), ("head_dim", c.c_int64),
                ("head_dim_v", c.c_int64), ("dtype", c.c_int32), ("reserved", c.c_int32),
                ("mask", c.c_void_p), ("softcap", c.c_double), ("softmax_scale", c.c_double)]


class SessionOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("max_problem", c.POINTER(Problem)), ("algorithm", c.c_int32),
                ("outer", c.c_int32), ("layout", c.c_void_p), ("backward", c.c_int32),
                ("threads", c.c_int32), ("kernel", c.c_char_p), ("arena", c.c_void_p),
                ("arena_bytes", c.c_int64), ("backend", c.c_char_p), ("transport", c.c_char_p),
                ("device", c.c_int32), ("ranks_per_host", c.c_int32), ("nccl", c.c_void_p), ("peer_copies", c.c_char_p),
                ("backward_moves", c.c_int32), ("reserved", c.c_int32)]


class AttentionOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("algorithm", c.c_int32), ("outer", c.c_int32), ("layout", c.c_void_p),
                ("kernel", c.c_char_p), ("tile_q", c.c_int64), ("tile_k", c.c_int64), ("deterministic", c.c_int32),
                ("blocking_transfers", c.c_int32), ("gather_at_once", c.c_int32), ("ulysses_slices", c.c_int32),
                ("sm_limit", c.c_int32), ("backward_moves", c.c_int32), ("gather_push", c.c_int32), ("reserved", c.c_int32)]


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int32), ("rank", c.c_int32),
                ("shape", c.c_int64 * 5), ("strides", c.c_int64 * 5)]


def view(tensor):
    """A torch tensor as the interface takes it; the last stride must be 1."""
    t = Tensor(data=tensor.data_ptr(), dtype=DTYPES[tensor.dtype], rank=tensor.dim())
    t.shape[:tensor.dim()] = tensor.shape
    t.strides[:tensor.dim()] = tensor.stride()
    return t


class Library:
    def __init__(self, path, communicator=None):
        self.lib = c.CDLL(path)
        self.lib.annulus_status_name.restype = c.c_char_p
        self.mesh = c.c_void_p()
        if communicator is None:
            self.call(self.lib.annulus_mesh_single, None, c.byref(self.mesh))
        else:
            self.call(self.lib.annulus_mesh_from_mpi, communicator.py2f(), communicator.Get_size(), 1, None,
                      c.byref(self.mesh))

    def call(self, function, *arguments):
        error = Error()
        if function(*arguments, c.byref(error)) != 0:
            name = self.lib.annulus_status_name(error.status).decode()
            raise RuntimeError(f"{name}: {error.text.decode()}")

    def attention(self, *shape, **options):
        return Attention(self, *shape, **options)


class Attention:
    """One GPU's attention; distributed calls differ in the mesh alone."""

    def __init__(self, library, batch, seq, heads, heads_kv, head_dim, dtype, causal=True, backward=True,
                 backend="cuda", kernel="auto", head_dim_v=None, sm_limit=0,
                 deterministic=False):
        self.library, lib = library, library.lib
        self.session, self.handle, self.mask = c.c_void_p(), c.c_void_p(), c.c_void_p()
        if causal:
            library.call(lib.annulus_mask_causal, 0, c.byref(self.mask))
        else:
            library.call(lib.annulus_mask_full, c.byref(self.mask))
        problem = Problem()
        lib.annulus_problem_init(c.byref(problem), c.c_size_t(c.sizeof(problem)))
        problem.batch, problem.seq, problem.heads, problem.heads_kv = batch, seq, heads, heads_kv
        problem.head_dim, problem.dtype, problem.mask = head_dim, DTYPES[dtype], self.mask
        if head_dim_v is not None:
            problem.head_dim_v = head_dim_v
        options = SessionOptions()
        lib.annulus_session_options_init(c.byref(options), c.c_size_t(c.sizeof(options)))
        options.max_problem, options.backward = c.pointer(problem), int(backward)
        options.backend = self.backend = backend.encode()
        options.kernel = kernel.encode()
        how = AttentionOptions()
        lib.annulus_attention_options_init(c.byref(how), c.c_size_t(c.sizeof(how)))
        how.kernel, how.sm_limit, how.deterministic = kernel.encode(), sm_limit, int(deterministic)
        if backend == "cuda":
            options.device = torch.cuda.current_device()
        library.call(lib.annulus_session_create, library.mesh, c.byref(options), c.byref(self.session))
        library.call(lib.annulus_attention_create, self.session, c.byref(problem), c.byref(how),
                     c.byref(self.handle))

    def run(self, function, tensors):
        stream = c.c_void_p(torch.cuda.current_stream().cuda_stream if self.backend == b"cuda" else None)
        self.library.call(function, self.handle, *[c.byref(view(t)) for t in tensors], stream)

    def forward(self, q, k, v, out, lse):
        self.run(self.library.lib.annulus_attention_forward, (q, k, v, out, lse))

    def backward(self, dout, q, k, v, out, lse, dq, dk, dv):
        self.run(self.library.lib.annulus_attention_backward, (dout, q, k, v, out, lse, dq, dk, dv))

    def positions(self, rank):
        """The global position of each token of a rank's shard."""
        lib = self.library.lib
        lib.annulus_attention_seq_local.restype = c.c_int64
        values = (c.c_int64 * lib.annulus_attention_seq_local(self.handle, rank))()
        self.library.call(lib.annulus_attention_positions, self.handle, rank, values)
        return list(values)

    def close(self):
        lib = self.library.lib
        lib.annulus_attention_free(self.handle)
        lib.annulus_session_free(self.session)
        lib.annulus_mask_free(self.mask)


def load(path, communicator=None):
    return Library(path, communicator)
