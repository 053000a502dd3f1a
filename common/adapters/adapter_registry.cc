#include "common/adapters/adapter_registry.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "common/adapters/built_in_families.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/family_reader.h"
#include "common/adapters/recognise_family.h"
#include "common/limits/text_file.h"

namespace refit {
namespace {

constexpr absl::string_view kDefaultFamily = "gemma4_moe";

using FamilyPtr = std::shared_ptr<const Family>;

std::optional<absl::string_view> SharedRulesNamed(absl::string_view name) {
  for (const NamedText& shared : kSharedRules) {
    if (shared.name == name) return shared.text;
  }
  return std::nullopt;
}

class Registry {
 public:
  // Lives as long as the process: adapters may be used while it ends.
  static Registry& Get() {
    static Registry& registry = *std::make_unique<Registry>().release();
    return registry;
  }

  Registry() {
    for (const NamedText& family : kBuiltInFamilies) {
      absl::StatusOr<FamilyPtr> read = ReadFamily(family.text, absl::StrCat(family.name, ".toml"), &SharedRulesNamed);
      if (read.ok()) {
        families_.push_back({*std::move(read), ""});
      } else {
        broken_.Update(absl::InternalError(read.status().message()));
      }
    }
  }

  std::vector<FamilyPtr> families() const {
    absl::MutexLock lock(&mutex_);
    std::vector<FamilyPtr> families;
    for (const Known& known : families_) families.push_back(known.family);
    return families;
  }

  // Of the families that are built in.
  const absl::Status& broken() const { return broken_; }

  absl::Status Add(FamilyPtr family, std::string text) {
    absl::MutexLock lock(&mutex_);
    for (const Known& known : families_) {
      if (known.family->name != family->name) continue;
      if (known.text == text) return absl::OkStatus();
      return absl::AlreadyExistsError(absl::StrCat("there is an adapter '", family->name, "' already"));
    }
    families_.push_back({std::move(family), std::move(text)});
    return absl::OkStatus();
  }

 private:
  struct Known {
    FamilyPtr family;
    std::string text;  // of the file that it came from; empty: built in
  };

  absl::Status broken_;
  mutable absl::Mutex mutex_;
  std::vector<Known> families_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Family>> FindFamily(absl::string_view name) {
  if (!Registry::Get().broken().ok()) return Registry::Get().broken();
  const absl::string_view wanted = name.empty() ? kDefaultFamily : name;
  for (FamilyPtr& family : Registry::Get().families()) {
    if (family->name == wanted) return std::move(family);
  }
  return absl::NotFoundError(
      absl::StrCat("no adapter \"", Printable(name), "\"; known are ", absl::StrJoin(AdapterNames(), ", ")));
}

absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name, const AdapterOptions& options) {
  absl::StatusOr<FamilyPtr> family = FindFamily(name);
  if (!family.ok()) return family.status();
  return MakeAdapter(*std::move(family), options);
}

absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name, const AdapterOptions& options,
                                                           absl::Span<const TensorSpec> native) {
  if (name != kAutoAdapter) return FindAdapter(name, options);
  const absl::StatusOr<RecognisedFamily> recognised = RecogniseFamily(native);
  if (!recognised.ok()) return recognised.status();
  return FindAdapter(recognised->name, options);
}

std::vector<std::shared_ptr<const Family>> KnownFamilies() { return Registry::Get().families(); }

std::vector<std::string> AdapterNames() {
  std::vector<std::string> names;
  for (const FamilyPtr& family : KnownFamilies()) names.push_back(family->name);
  return names;
}

absl::Status AddAdapterFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<FamilyPtr> family = ReadFamily(*text, path, &SharedRulesNamed);
  if (!family.ok()) return family.status();
  absl::Status status = Registry::Get().Add(*std::move(family), *std::move(text));
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace refit
