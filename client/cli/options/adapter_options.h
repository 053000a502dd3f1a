// Options that say how native tensors become Hugging Face tensors.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/types/span.h"
#include "common/adapters/plan.h"

namespace refit::cli {

struct AdapterChoice {
  std::string name = "gemma4_moe";
  AdapterOptions options;
};

// --adapter-file, whose families are known from then on.
void AddAdapterFileOption(CLI::App* command, const std::string& group);

// --adapter, --adapter-file, --adapter-option, --expert-width, and, unless the command has one of its own, --experts.
void AddAdapterOptions(CLI::App* command, AdapterChoice& choice, const std::string& group, bool with_experts = true);

// Tells what `auto` has chosen, and which names look as if a rule had missed them. Nothing if all is as usual.
std::string NoteOfAdapter(const AdapterChoice& choice, absl::Span<const TensorSpec> native);

}  // namespace refit::cli
