#pragma once

// What row kernels name of CUDA's runtime, where their blocks are compiled for the host.
#define __host__

using cudaStream_t = void*;

enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t /*code*/) { return ""; }
