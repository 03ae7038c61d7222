#include <annulus/attention.h>

namespace annulus {}
