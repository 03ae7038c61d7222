"""What is run: shapes, and the one count of FLOPs that every row is rated by."""
import math
from dataclasses import dataclass

# Tokens a GPU, query and key/value heads.
GRID = ["1024:32:8", "2048:32:8", "4096:32:8", "8192:32:8", "8192:64:8", "8192:24:8", "8192:32:32",
        "16384:32:8", "32768:32:8", "65536:32:8", "131072:32:8"]


@dataclass(frozen=True, order=True)
class Shape:
    tokens: int
    heads: int
    heads_kv: int
    head_dim: int

    @property
    def name(self):
        return f"{self.tokens} {self.heads}:{self.heads_kv}"

    def seq(self, world):
        return self.tokens * world

    def flops(self, world, which):
        """Of one GPU, causal: 2 H S^2 D forward, 2.5 times that backward."""
        forward = 2.0 * self.heads * self.seq(world) ** 2 * self.head_dim / world
        return forward * (1.0 if which == "forward" else 3.5)

    def ceiling_seq(self, world):
        """On one GPU the work of one of `world`: S / sqrt(world) tokens, as tiles like them."""
        return max(1, math.isqrt(self.seq(world) ** 2 // world) // 128) * 128 if self.tokens >= 128 else \
            math.isqrt(self.seq(world) ** 2 // world)


def shape_of(text, head_dim):
    """Of "TOKENS:HEADS:HEADS_KV"; ValueError for anything else."""
    tokens, heads, heads_kv = (int(word) for word in text.split(":"))
    if min(tokens, heads, heads_kv) < 1 or heads % heads_kv:
        raise ValueError(text)
    return Shape(tokens, heads, heads_kv, head_dim)
