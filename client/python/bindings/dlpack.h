// The parts of DLPack that this package uses, as its specification defines them (DLPack 0.8, github.com/dmlc/dlpack;
// codes of 8-bit floats from 1.1, and the capsules of 1.x, which contain more).
#pragma once

#include <cstdint>

namespace refit::python {

enum DLDeviceType : int32_t { kDLCPU = 1, kDLCUDAHost = 3, kDLROCMHost = 11, kDLCUDAManaged = 13 };

// Whether a CPU can read it.
constexpr bool IsHostMemory(int32_t type) {
  return type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost || type == kDLCUDAManaged;
}

struct DLDevice {
  int32_t type;
  int32_t id;
};

enum DLDataTypeCode : uint8_t {
  kDLInt = 0,
  kDLUInt = 1,
  kDLFloat = 2,
  kDLBfloat = 4,
  kDLComplex = 5,
  kDLBool = 6,
  kDLFloat8E4M3FN = 10,
  kDLFloat8E4M3FNUZ = 11,
  kDLFloat8E5M2 = 12,
  kDLFloat8E5M2FNUZ = 13,
  kDLFloat8E8M0FNU = 14,
  kDLFloat4E2M1FN = 17,
};

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // elements; null: row-major without gaps
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

// 1.x
struct DLPackVersion {
  uint32_t major;
  uint32_t minor;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};

inline constexpr uint32_t kDLPackMajor = 1;
inline constexpr uint64_t kDLPackReadOnly = 1;

inline constexpr char kDLPackVersionedName[] = "dltensor_versioned";
inline constexpr char kDLPackName[] = "dltensor";
inline constexpr char kDLPackUsedName[] = "used_dltensor";

}  // namespace refit::python
