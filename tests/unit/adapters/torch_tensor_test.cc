#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/adapters/torch_errors.h"
#include "common/tensor/kernels.h"
#include "refit/torch/tensor.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::vector<std::byte> BytesCopy(const TypedTensor& tensor) {
  const TypedTensor host = OnHost(tensor).value();
  const absl::Span<const std::byte> bytes = BytesOf(host).value();
  return {bytes.begin(), bytes.end()};
}

// Any bits: NaNs, infinities and denormals among them.
TypedTensor AnyBits(DType dtype, const Shape& shape) {
  const at::Tensor bytes = at::randint(0, 256, {static_cast<int64_t>(ByteCount(dtype, shape).value())},
                                       at::TensorOptions().dtype(at::kByte));
  auto owner = std::make_shared<at::Tensor>(bytes);
  return TensorOnBytes({"t", dtype, shape}, BytesOf(bytes).value(), owner).value();
}

class EveryDType : public ::testing::TestWithParam<DType> {};

TEST_P(EveryDType, HasAStorageTypeOfItsSize) {
  EXPECT_EQ(c10::elementSize(StorageTypeOf(GetParam())), ElementSize(GetParam()));
  if (ScalarTypeOf(GetParam()).has_value()) {
    EXPECT_EQ(DTypeOf(*ScalarTypeOf(GetParam())), GetParam());
  }
}

TEST_P(EveryDType, GoesFromBytesAndBack) {
  const Shape shape = {3, 5};
  std::vector<std::byte> bytes(15 * ElementSize(GetParam()), std::byte{0x83});
  const TypedTensor tensor = TensorOnBytes({"t", GetParam(), shape}, bytes, nullptr).value();
  EXPECT_EQ(tensor.data.data_ptr(), bytes.data());
  EXPECT_EQ(SpecOf("t", tensor).value(), (TensorSpec{"t", GetParam(), shape}));
  EXPECT_EQ(BytesCopy(tensor), bytes);
}

TEST_P(EveryDType, KeepsEveryBitWhenTransposed) {
  const TypedTensor tensor = AnyBits(GetParam(), {2, 3, 5});
  if (PackedBits(GetParam()) != 0) {
    EXPECT_THAT(Message(TransposeLastTwo(tensor, GetParam()).status()),
                HasSubstr("packed values cannot be transposed"));
    return;
  }
  const TypedTensor once = TransposeLastTwo(tensor, GetParam()).value();
  EXPECT_EQ(SpecOf("t", once).value().shape, (Shape{2, 5, 3}));
  EXPECT_TRUE(once.data.is_contiguous());
  const TypedTensor twice = TransposeLastTwo(once, GetParam()).value();
  EXPECT_EQ(BytesCopy(twice), BytesCopy(tensor));
}

TEST_P(EveryDType, KeepsEveryBitOfAViewThatIsNotContiguous) {
  const TypedTensor tensor = AnyBits(GetParam(), {4, 6});
  const TypedTensor view(tensor.data.t().slice(0, 1, 6, 2), GetParam());
  const std::vector<std::byte> all = BytesCopy(tensor);
  std::vector<std::byte> expected;
  const auto size = static_cast<std::ptrdiff_t>(ElementSize(GetParam()));
  for (int column : {1, 3, 5}) {
    for (int row = 0; row < 4; ++row) {
      const auto element = all.begin() + (row * 6 + column) * size;
      expected.insert(expected.end(), element, element + size);
    }
  }
  EXPECT_EQ(BytesCopy(view), expected);
}

TEST_P(EveryDType, CastsAsTheKernelDoes) {
  for (DType to : kAllDTypes) {
    const TypedTensor tensor = AnyBits(GetParam(), {7, 9});
    const absl::StatusOr<TypedTensor> cast = CastTo(tensor, to);
    ASSERT_EQ(cast.ok(), CanConvert(GetParam(), to)) << Name(to);
    if (!cast.ok()) continue;
    std::vector<std::byte> expected(63 * ElementSize(to));
    const std::vector<std::byte> source = BytesCopy(tensor);
    ConvertElements(GetParam(), to, source.data(), expected.data(), 63);
    EXPECT_EQ(BytesCopy(*cast), expected) << Name(to);
    EXPECT_EQ(cast->dtype, to);

    if (!CanTranspose(GetParam(), to)) continue;
    const TypedTensor transposed = TransposeLastTwo(tensor, to).value();
    EXPECT_EQ(BytesCopy(TypedTensor(transposed.data.t(), to)), expected) << Name(to);
  }
}

TEST_P(EveryDType, MakesOnes) {
  std::vector<std::byte> expected(3 * ElementSize(GetParam()));
  FillOnes(GetParam(), expected.data(), 3);
  EXPECT_EQ(BytesCopy(Ones(GetParam(), {3}).value()), expected);
}

TEST_P(EveryDType, EmptyAndScalarTensorsWork) {
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{2, 0, 3}}) {
    const TypedTensor tensor = AnyBits(GetParam(), shape);
    EXPECT_EQ(SpecOf("t", tensor).value().shape, shape);
    EXPECT_EQ(BytesCopy(tensor).size(), ByteCount(GetParam(), shape).value());
  }
  if (PackedBits(GetParam()) != 0) return;
  EXPECT_EQ(TransposeLastTwo(AnyBits(GetParam(), {2, 0, 3}), GetParam()).value().data.sizes().vec(),
            (std::vector<int64_t>{2, 3, 0}));
}

INSTANTIATE_TEST_SUITE_P(DTypes, EveryDType, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& test) { return std::string(Name(test.param)); });

TEST(TypedTensor, IsMadeFromAnAtTensor) {
  const TypedTensor tensor = at::ones({2}, at::TensorOptions().dtype(at::kBFloat16));
  EXPECT_EQ(tensor.dtype, DType::kBF16);
}

TEST(OnHost, TakesWhatAConjugatedViewShows) {
  const at::Tensor values = at::view_as_complex(at::tensor({1.0F, 2.0F, -3.0F, 0.5F}).view({2, 2}));
  const TypedTensor conjugated = values.conj();
  ASSERT_TRUE(conjugated.data.is_conj());
  EXPECT_EQ(BytesCopy(conjugated), BytesCopy(values.conj().resolve_conj()));
  EXPECT_NE(BytesCopy(conjugated), BytesCopy(values));
}

TEST(SpecOf, RefusesWhatNoDTypeStandsFor) {
  const TypedTensor tensor = at::ones({2}, at::TensorOptions().dtype(at::kComplexDouble));
  const absl::Status status = SpecOf("w", tensor).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("tensor w"), HasSubstr("ComplexDouble")));
}

TEST(SpecOf, RefusesUndefinedSparseAndContradictoryTensors) {
  EXPECT_THAT(Message(SpecOf("w", TypedTensor()).status()), HasSubstr("undefined"));
  EXPECT_THAT(Message(SpecOf("w", TypedTensor(at::Tensor())).status()), HasSubstr("undefined"));
  EXPECT_THAT(Message(SpecOf("w", at::eye(3).to_sparse()).status()), HasSubstr("strided"));
  EXPECT_THAT(Message(SpecOf("w", TypedTensor(at::ones({2}), DType::kBF16)).status()),
              AllOf(HasSubstr("BF16"), HasSubstr("Float")));
}

TEST(TensorOnBytes, RefusesAnotherSize) {
  std::vector<std::byte> bytes(7);
  const absl::Status status = TensorOnBytes({"w", DType::kF32, {2}}, bytes, nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("w"), HasSubstr("8 bytes"), HasSubstr("got 7")));
  EXPECT_FALSE(TensorOnBytes({"w", DType::kF32, {-2}}, bytes, nullptr).ok());
}

TEST(TensorOnBytes, KeepsTheOwnerWhileAViewLives) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = owner;
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(owner->data()), 16);
  at::Tensor view = TensorOnBytes({"w", DType::kF32, {4}}, bytes, std::move(owner)).value().data.slice(0, 2);
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(view[0].item<float>(), 3);
  view = at::Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(TensorOnBytes, CopiesWhatIsNotAligned) {
  std::vector<std::byte> bytes(9);
  const float value = 2.5;
  std::memcpy(bytes.data() + 1, &value, 4);
  const TypedTensor tensor = TensorOnBytes({"w", DType::kF32, {2}}, {bytes.data() + 1, 8}, nullptr).value();
  EXPECT_EQ(tensor.data[0].item<float>(), 2.5F);
}

TEST(BytesOf, RefusesAViewThatIsNotContiguous) {
  EXPECT_EQ(BytesOf(at::ones({2, 3}).t()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BytesOf(TypedTensor()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CastTo, GivesTheSameTensorWhereNothingChanges) {
  const at::Tensor tensor = at::ones({2, 3}).t();
  EXPECT_TRUE(CastTo(tensor, DType::kF32).value().data.is_same(tensor));
}

TEST(CastTo, EqualsLibTorchOnNumbers) {
  const at::Tensor numbers = at::randn({1000}, at::TensorOptions().dtype(at::kDouble)) * 1000;
  for (DType from : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
    for (DType to : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
      const at::Tensor source = numbers.to(*ScalarTypeOf(from));
      EXPECT_TRUE(at::equal(CastTo(source, to).value().data, source.to(*ScalarTypeOf(to))))
          << Name(from) << " to " << Name(to);
    }
  }
}

TEST(TransposeLastTwo, NeedsTwoDimensions) {
  EXPECT_EQ(TransposeLastTwo(at::ones({3}), DType::kF32).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TransposeLastTwo, OfATransposedViewNeedsNoCopy) {
  const at::Tensor stored = at::randn({2, 5, 3});
  const TypedTensor result = TransposeLastTwo(stored.transpose(-2, -1), DType::kF32).value();
  EXPECT_EQ(result.data.data_ptr(), stored.data_ptr());
}

TEST(TransposeLastTwo, OfAnExpandedAndOfATrainableTensor) {
  const at::Tensor expanded = at::randn({1, 3, 2}).expand({4, 3, 2});
  EXPECT_TRUE(at::equal(TransposeLastTwo(expanded, DType::kF32).value().data, expanded.transpose(-2, -1)));
  at::Tensor trainable = at::randn({3, 2});
  trainable.set_requires_grad(true);
  EXPECT_TRUE(at::equal(TransposeLastTwo(trainable, DType::kF32).value().data, trainable.detach().t()));
}

TEST(CatchTorchErrors, TurnsWhatIsThrownIntoAStatus) {
  const auto code = [](auto thrower) {
    const absl::Status status = CatchTorchErrors("tensor w", [&]() -> absl::Status {
      thrower();
      return absl::OkStatus();
    });
    EXPECT_THAT(Message(status), HasSubstr("tensor w: "));
    return status.code();
  };
  EXPECT_EQ(code([] { TORCH_CHECK_INDEX(false, "bad"); }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([] { TORCH_CHECK_VALUE(false, "bad"); }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([] { TORCH_CHECK_TYPE(false, "bad"); }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([] { TORCH_CHECK(false, "bad"); }), absl::StatusCode::kInternal);
  EXPECT_EQ(code([] { throw std::bad_alloc(); }), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code([] { throw std::runtime_error("bad"); }), absl::StatusCode::kInternal);
}

// Memory that a tensor claims and does not have.
class BadMemory : public ::testing::Test {
 protected:
  static at::Tensor Resized(at::Tensor tensor, size_t bytes) {
    tensor.storage().unsafeGetStorageImpl()->set_nbytes(bytes);
    return tensor;
  }

  // Everything that reads a tensor refuses it.
  static void ExpectRefused(const at::Tensor& tensor, const std::string& why) {
    for (const absl::Status& status :
         {CheckMemory(tensor), OnHost(tensor).status(), CastTo(tensor, DType::kBF16).status(),
          TransposeLastTwo(tensor, DType::kF32).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(Message(status), HasSubstr(why));
    }
    EXPECT_EQ(BytesOf(tensor).status().code(), absl::StatusCode::kInvalidArgument);
  }
};

TEST_F(BadMemory, AShrunkStorage) {
  ExpectRefused(Resized(at::ones({4, 8}), 100),
                "Float [4, 8] with strides [8, 1] from element 0 on needs 128 bytes, but "
                "its storage has 100");
  ExpectRefused(Resized(at::ones({4, 8}), 0), "its storage has 0");
  ExpectRefused(Resized(at::ones({4, 8}).t(), 127), "needs 128 bytes");
  ExpectRefused(Resized(at::ones({4, 8}).slice(0, 3), 127), "from element 24 on");
}

TEST_F(BadMemory, WhatIsUsedIsWhatCounts) {
  const at::Tensor whole = at::ones({4, 8});
  const at::Tensor part = whole.slice(0, 0, 2);
  Resized(whole, 64);
  EXPECT_TRUE(OnHost(part).ok());
  EXPECT_TRUE(CheckMemory(whole.slice(0, 4)).ok());  // empty
}

TEST_F(BadMemory, NoMemoryAtAll) {
  ExpectRefused(at::ones({4, 8}, at::TensorOptions().device(at::kMeta)), "meta");
  ExpectRefused(at::_efficientzerotensor({4, 8}), "no memory of its own");
  const at::Tensor without(c10::make_intrusive<at::TensorImpl>(
      c10::Storage(c10::Storage::use_byte_size_t(), 128, at::DataPtr(nullptr, at::kCPU), nullptr, false),
      c10::DispatchKeySet(c10::DispatchKey::CPU), at::scalarTypeToTypeMeta(at::kFloat)));
  without.unsafeGetTensorImpl()->set_sizes_contiguous({4, 8});
  ExpectRefused(without, "no memory of its own");
}

TEST_F(BadMemory, AFileThatWasTruncated) {
  const std::string path = ::testing::TempDir() + "/truncated_under_a_tensor";
  const at::Tensor mapped = at::from_file(path, true, 1 << 20, at::kFloat).view({1024, 1024});
  ASSERT_EQ(truncate(path.c_str(), 8192), 0);
  ExpectRefused(mapped, "truncated");
  ExpectRefused(mapped.t(), "truncated");
  EXPECT_TRUE(OnHost(mapped.slice(0, 0, 2)).ok());
  unlink(path.c_str());
}

TEST_F(BadMemory, NegatedViewsKeepTheirSigns) {
  const at::Tensor pairs = at::arange(1, 13, at::kFloat).view({2, 3, 2});
  const at::Tensor negated = at::imag(at::view_as_complex(pairs).conj());
  ASSERT_TRUE(negated.is_neg());
  EXPECT_FALSE(BytesOf(negated).ok());
  EXPECT_TRUE(OnHost(negated).value().data.equal(negated));
  EXPECT_TRUE(CastTo(negated, DType::kF64).value().data.equal(negated.to(at::kDouble)));
  EXPECT_TRUE(TransposeLastTwo(negated, DType::kF32).value().data.equal(negated.t()));
}

TEST_F(BadMemory, NestedTensorsAreNoException) {
  const at::Tensor nested = at::_nested_tensor_from_tensor_list({at::ones({2}), at::ones({3})});
  EXPECT_EQ(SpecOf("w", nested).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace refit
