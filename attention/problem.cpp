#include <annulus/problem.h>

namespace annulus {}
