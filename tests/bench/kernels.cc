// The conversion kernels against memcpy of the same bytes and against LibTorch, one thread, warm memory.
//
// Names are transpose/<shape>/<cast>/<contender>; bytes count what is read.
#include "common/tensor/kernels.h"

#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "refit/buffer.h"
#include "tests/bench/kernels_torch.h"

namespace refit {
namespace {

struct Case {
  std::string name;
  int64_t matrices;
  int64_t rows;
  int64_t cols;
  DType from;
  DType to;

  int64_t elements() const { return matrices * rows * cols; }
  int64_t source_bytes() const { return elements() * static_cast<int64_t>(ElementSize(from)); }
  int64_t target_bytes() const { return elements() * static_cast<int64_t>(ElementSize(to)); }
};

// The expert tensors of Gemma 4 26B-A4B.
std::vector<Case> Cases(int64_t experts) {
  return {{"gate_up", experts, 2816, 1408, DType::kBF16, DType::kBF16},
          {"down", experts, 704, 2816, DType::kBF16, DType::kBF16},
          {"gate_up", experts, 2816, 1408, DType::kF32, DType::kBF16},
          {"down", experts, 704, 2816, DType::kF32, DType::kBF16}};
}

// Shared by all cases, so that memory is touched once.
struct Memory {
  std::shared_ptr<Buffer> source;
  std::shared_ptr<Buffer> target;
};

Memory MakeMemory(const std::vector<Case>& cases) {
  int64_t source = 0;
  int64_t target = 0;
  for (const Case& c : cases) {
    source = std::max(source, c.source_bytes());
    target = std::max(target, std::max(c.target_bytes(), c.source_bytes()));
  }
  Memory memory{*Buffer::Allocate(source), *Buffer::Allocate(target)};
  for (int64_t i = 0; i < source; ++i) memory.source->data()[i] = static_cast<std::byte>(i % 127);
  std::memset(memory.target->data(), 0, target);
  return memory;
}

void Transpose(const Case& c, const Memory& memory) {
  const int64_t matrix = c.rows * c.cols;
  for (int64_t i = 0; i < c.matrices; ++i) {
    TransposeElements(c.from, c.to, memory.source->data() + i * matrix * static_cast<int64_t>(ElementSize(c.from)),
                      c.cols, memory.target->data() + i * matrix * static_cast<int64_t>(ElementSize(c.to)), c.rows,
                      c.rows, c.cols);
  }
}

void Add(const Case& c, const std::string& contender, std::function<void()> work) {
  const std::string name =
      "transpose/" + c.name + "/" + std::string(Name(c.from)) + "->" + std::string(Name(c.to)) + "/" + contender;
  benchmark::RegisterBenchmark(name.c_str(), [work = std::move(work),
                                              bytes = c.source_bytes()](benchmark::State& state) {
    for (auto _ : state) {
      work();
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * bytes);
  })->Unit(benchmark::kMillisecond);
}

void AddAll(const Case& c, const Memory& memory) {
  Add(c, "memcpy", [c, memory] { std::memcpy(memory.target->data(), memory.source->data(), c.source_bytes()); });
  Add(c, "refit", [c, memory] { Transpose(c, memory); });
  for (const std::string& target : KernelTargets()) {
    Add(c, "refit_" + target, [c, memory, target] {
      UseKernelTarget(target);
      Transpose(c, memory);
      UseKernelTarget("");
    });
  }
  for (const std::string& way : TransposeWays()) {
    Add(c, "refit_" + way, [c, memory, way] {
      UseTransposeWay(way);
      Transpose(c, memory);
      UseTransposeWay("");
    });
  }
  if (HasTorch()) {
    Add(c, "torch", [c, memory] {
      TorchTranspose(c.from, c.to, {c.matrices, c.rows, c.cols}, memory.source->data(), memory.target->data());
    });
  }
}

int Main(int argc, char** argv) {
  int64_t experts = 128;
  if (argc > 1 && std::string(argv[1]) == "--small") {
    experts = 4;
    --argc;
    ++argv;
  }
  const std::vector<Case> cases = Cases(experts);
  const Memory memory = MakeMemory(cases);
  for (const Case& c : cases) AddAll(c, memory);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  std::cerr << "chosen: " << ChosenTransposeWay(DType::kBF16, DType::kBF16)
            << "; with a cast: " << ChosenTransposeWay(DType::kF32, DType::kBF16) << "\n";
  return 0;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }
