#include "comm/transport.h"

namespace annulus::comm {}
