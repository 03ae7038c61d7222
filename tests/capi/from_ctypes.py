"""The C interface through ctypes, with the standard library alone.

    from_ctypes.py LIBANNULUS [--mpi]

Attention with q = 0 under a causal mask: row i is the mean of v[0..i], and its lse log(i + 1).
"""
import array
import ctypes as c
import json
import math
import os
import sys


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
                ("threads", c.c_int32), ("kernel", c.c_char_p), ("arena", c.c_void_p), ("arena_bytes", c.c_int64)]


class CostRequest(c.Structure):
    _fields_ = ([("size", c.c_size_t), ("stage", c.c_int32), ("mode", c.c_int32)]
                + [(name, c.c_int64) for name in ("batch", "heads", "heads_kv", "head_dim", "head_dim_v", "layers",
                                                  "seq", "seq_kv", "prompt", "generated", "beam")]
                + [("chunks", c.c_char_p), ("decode_kv", c.c_char_p), ("sp", c.c_int64), ("tp", c.c_int64),
                   ("ep", c.c_int64), ("softmax_factor", c.c_double),
                   ("masked_pairs_by_rank", c.POINTER(c.c_int64)), ("peak_tflops", c.c_double)])


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int32), ("rank", c.c_int32),
                ("shape", c.c_int64 * 5), ("strides", c.c_int64 * 5)]


lib = c.CDLL(sys.argv[1])
lib.annulus_attention_seq_local.restype = c.c_int64
lib.annulus_text_free.argtypes = [c.c_void_p]
lib.annulus_status_name.restype = c.c_char_p
F32, FORWARD, RING = 0, 0, 1


def call(function, *arguments):
    error = Error()
    status = function(*arguments, c.byref(error))
    if status != 0:
        raise RuntimeError(f"{lib.annulus_status_name(status).decode()}: {error.text.decode()}")


def tensor(values, *shape):
    """Borrows the memory of an array.array."""
    view = Tensor()
    address, _ = values.buffer_info()
    lib.annulus_tensor_init(c.byref(view), c.c_void_p(address), F32, len(shape),
                            (c.c_int64 * len(shape))(*shape))
    return view


def floats(count, value=0.0):
    return array.array("f", [value]) * count


def make_problem(seq):
    problem = Problem()
    lib.annulus_problem_init(c.byref(problem), c.c_size_t(c.sizeof(problem)))
    problem.seq, problem.heads, problem.head_dim = seq, 2, 4
    return problem


def run_rank(mesh, seq=29):
    rank = lib.annulus_mesh_rank(mesh)
    problem = make_problem(seq)
    options = SessionOptions()
    lib.annulus_session_options_init(c.byref(options), c.c_size_t(c.sizeof(options)))
    options.max_problem = c.pointer(problem)
    session, attention = c.c_void_p(), c.c_void_p()
    call(lib.annulus_session_create, mesh, c.byref(options), c.byref(session))
    call(lib.annulus_attention_create, session, c.byref(problem), None, c.byref(attention))

    n = lib.annulus_attention_seq_local(attention, rank)
    positions = (c.c_int64 * n)()
    call(lib.annulus_attention_positions, attention, rank, positions)
    q, k, out, lse = floats(n * 8), floats(n * 8), floats(n * 8), floats(n * 2)
    v = array.array("f", [float(p) for p in positions for _ in range(8)])
    views = [tensor(x, 1, n, 2, 4) for x in (q, k, v, out)] + [tensor(lse, 1, 2, n)]
    call(lib.annulus_attention_forward, attention, *[c.byref(x) for x in views], None)
    for i, p in enumerate(positions):
        assert all(abs(x - p / 2) < 1e-4 for x in out[8 * i:8 * i + 8]), (p, out[8 * i])
        assert abs(lse[i] - math.log(p + 1)) < 1e-4, (p, lse[i])

    text = c.c_void_p()
    call(lib.annulus_attention_cost_json, attention, c.byref(text))
    report = json.loads(c.string_at(text))
    lib.annulus_text_free(text)
    assert report["schema"] == "annulus.cost/1", report
    assert len(report["executed"]["flops_rank_layer"]) == lib.annulus_mesh_world(mesh)
    for handle, free in ((attention, lib.annulus_attention_free), (session, lib.annulus_session_free)):
        free(handle)


def told(function, *arguments):
    """Of a call that gives a text away."""
    text = c.c_void_p()
    call(function, *arguments, c.byref(text))
    try:
        return c.string_at(text).decode()
    finally:
        lib.annulus_text_free(text)


def prices_are_those_of_the_formulas():
    request = CostRequest()
    lib.annulus_cost_request_init(c.byref(request), c.c_size_t(c.sizeof(request)))
    request.seq, request.heads, request.head_dim, request.sp = 80, 32, 128, 2
    request.masked_pairs_by_rank = (c.c_int64 * 2)(1000, 2240)
    report = json.loads(told(lib.annulus_price_json, c.byref(request)))
    assert report["corrected"]["logit_macs_rank_layer"] == 32 * 80 * 80 * 128, report
    assert report["original"]["logit_macs_rank_layer"] == 32 * 80 * 40 * 128, report
    assert report["exact"]["masked_flops_rank_layer"] == [4 * 32 * 128 * 1000, 4 * 32 * 128 * 2240], report


def a_local_kernel_runs(seq=9):
    problem, kernel = make_problem(seq), c.c_void_p()
    names = [line.split("\t")[0] for line in told(lib.annulus_local_kernels, c.byref(problem)).splitlines()]
    assert names[0] == "flash2" and "reference" in names, names
    call(lib.annulus_local_kernel_create, c.byref(problem), None, c.byref(kernel))
    q, k, out, lse = floats(seq * 8), floats(seq * 8), floats(seq * 8), floats(seq * 2)
    v = array.array("f", [float(i) for i in range(seq) for _ in range(8)])
    views = [tensor(x, 1, seq, 2, 4) for x in (q, k, v, out)] + [tensor(lse, 1, 2, seq)]
    call(lib.annulus_local_kernel_forward, kernel, *[c.byref(x) for x in views])
    assert all(abs(out[8 * i] - i / 2) < 1e-5 for i in range(seq)), out
    lib.annulus_local_kernel_free(kernel)


def refusals_become_exceptions_of_the_caller():
    problem, plan = make_problem(-1), c.c_void_p()
    try:
        call(lib.annulus_plan_make, c.byref(problem), None, RING, 1, 1, FORWARD, c.byref(plan))
    except RuntimeError as refused:
        assert str(refused).startswith("InvalidArgument: ") and "-1" in str(refused), refused
    else:
        raise AssertionError("seq -1 was accepted")


def under_mpi():
    """Open MPI's own library, as a trainer's mpi4py would have it loaded."""
    mpi = c.CDLL("libmpi.so.40", mode=c.RTLD_GLOBAL)
    mpi.MPI_Init(None, None)
    world = c.c_void_p(c.addressof(c.c_char.in_dll(mpi, "ompi_mpi_comm_world")))
    size = c.c_int()
    mpi.MPI_Comm_size(world, c.byref(size))
    mesh = c.c_void_p()
    call(lib.annulus_mesh_from_mpi, mpi.MPI_Comm_c2f(world), size.value, 1, None, c.byref(mesh))
    run_rank(mesh)
    rank = lib.annulus_mesh_rank(mesh)
    lib.annulus_mesh_free(mesh)
    mpi.MPI_Finalize()
    if rank == 0:
        print(f"ctypes on {size.value} ranks: all hold")


def alone():
    mesh = c.c_void_p()
    call(lib.annulus_mesh_single, None, c.byref(mesh))
    run_rank(mesh)
    lib.annulus_mesh_free(mesh)
    refusals_become_exceptions_of_the_caller()
    prices_are_those_of_the_formulas()
    a_local_kernel_runs()
    print("ctypes on one rank: all hold")


if "--mpi" in sys.argv and "OMPI_COMM_WORLD_RANK" in os.environ:
    under_mpi()
else:
    alone()
