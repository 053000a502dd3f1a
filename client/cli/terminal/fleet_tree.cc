#include "client/cli/terminal/fleet_tree.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/listing.h"
#include "common/net/states.h"
#include "common/net/version_key.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

// A relay or worker: all its models.
struct Node {
  std::vector<const v1::Worker*> models;
  std::map<std::string, Node> below;  // by name and life

  const v1::Worker& any() const { return *models.front(); }
};

std::string KeyOfNode(const v1::Worker& worker) { return absl::StrCat(worker.name(), "#", worker.life()); }

// The node of a relay of this name; made if the relay itself is not listed.
Node& RelayBelow(Node& above, const std::string& name) {
  for (auto& [key, node] : above.below) {
    if (!node.models.empty() && node.any().name() == name && node.any().has_relay()) return node;
  }
  return above.below[absl::StrCat(name, "#")];
}

// Relays first, the shallow ones before the deeper, so that each finds the one above it.
Node MakeTree(const v1::ListWorkersResponse& list) {
  std::vector<const v1::Worker*> workers;
  workers.reserve(static_cast<size_t>(list.workers_size()));
  for (const v1::Worker& worker : list.workers()) workers.push_back(&worker);
  std::stable_sort(workers.begin(), workers.end(), [](const v1::Worker* a, const v1::Worker* b) {
    return std::pair(!a->has_relay(), a->via_size()) < std::pair(!b->has_relay(), b->via_size());
  });
  Node root;
  for (const v1::Worker* worker : workers) {
    Node* above = &root;
    for (const std::string& name : worker->via()) above = &RelayBelow(*above, name);
    above->below[KeyOfNode(*worker)].models.push_back(worker);
  }
  return root;
}

// The version in use of a worker, the newest whole one of a relay. 0: none.
uint64_t NumberOf(const v1::Worker& worker) {
  return worker.has_relay() ? worker.last_complete_version() : worker.installed_version();
}

// A relay's epoch is not told.
bool IsBehind(const v1::Worker& worker, const v1::VersionSummary& version) {
  if (worker.has_relay()) return NumberOf(worker) < version.version();
  return VersionKey{worker.installed_epoch(), worker.installed_version()} < KeyOf(version);
}

std::string VersionsOf(const Node& node) {
  std::vector<std::string> texts;
  for (const v1::Worker* worker : node.models) {
    const uint64_t number = NumberOf(*worker);
    if (worker->model().empty() || number == 0) continue;
    texts.push_back(absl::StrCat(Printable(worker->model()), "/", number));
  }
  return texts.empty() ? "-" : absl::StrJoin(texts, ", ");
}

std::string Behind(const Node& node, const v1::ListVersionsResponse& versions) {
  uint64_t behind = 0;
  for (const v1::Worker* worker : node.models) {
    for (const v1::VersionSummary& version : versions.versions()) {
      if (version.model() != worker->model() || !WasCommitted(version.state())) continue;
      behind += IsBehind(*worker, version) ? 1 : 0;
    }
  }
  return absl::StrCat(behind);
}

std::string StateOf(const Node& node) {
  const v1::Worker& worker = node.any();
  if (!worker.has_relay()) return absl::StrCat(StateName(worker.state()), worker.connected() ? "" : ", gone");
  const bool connected =
      std::any_of(node.models.begin(), node.models.end(), [](const v1::Worker* each) { return each->connected(); });
  return absl::StrCat("relay", worker.relay().depth() == 0 ? "" : absl::StrCat(", depth ", worker.relay().depth()),
                      connected ? "" : ", gone");
}

void AddRows(const std::string& indent, const Node& above, const v1::ListVersionsResponse& versions, Table& table) {
  for (const auto& [key, node] : above.below) {
    if (node.models.empty()) continue;
    const v1::Worker& worker = node.any();
    uint64_t from_above = 0;
    for (const v1::Worker* each : node.models) from_above += each->total_sent_bytes();
    const std::string given = worker.has_relay() ? FormatBytes(worker.relay().sent_bytes()) : "";
    const std::string note =
        worker.has_relay() && !worker.relay().missing().empty() ? worker.relay().missing() : worker.last_error();
    table.AddRow({absl::StrCat(indent, Printable(ShownName(worker))), StateOf(node), VersionsOf(node),
                  Behind(node, versions), FormatBytes(from_above), given, Printable(note)});
    AddRows(indent + "  ", node, versions, table);
  }
}

}  // namespace

Table FleetTree(const std::string& service, const v1::ListWorkersResponse& workers,
                const v1::ListVersionsResponse& versions) {
  Table table({{"fleet"},
               {"state"},
               {"version"},
               {"behind", Align::kRight},
               {"from above", Align::kRight},
               {"given below", Align::kRight},
               {"note"}});
  table.AddRow({service, "", "", "", "", "", ""});
  AddRows("  ", MakeTree(workers), versions, table);
  return table;
}

}  // namespace refit::cli
