#pragma once

// wgmma.cuh of this folder has this product too.
