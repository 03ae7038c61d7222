#pragma once  // C too: annulus_c.h includes it

/// Marks what leaves the library; everything else is built with hidden visibility.
#define ANNULUS_API __attribute__((visibility("default")))
