#pragma once

#define ANNULUS_VERSION "0.1.0"
