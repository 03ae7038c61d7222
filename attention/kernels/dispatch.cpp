#include "attention/kernels/dispatch.h"

namespace annulus::attn {}
