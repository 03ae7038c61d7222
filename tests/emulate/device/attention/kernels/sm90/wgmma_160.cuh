#pragma once

// wgmma.cuh of this folder has products of any width.
