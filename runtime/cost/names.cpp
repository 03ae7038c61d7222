#include <annulus/cost.h>

namespace annulus {}
