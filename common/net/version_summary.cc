#include "common/net/version_summary.h"

namespace refit {

VersionSummary FromProto(const v1::VersionSummary& proto) {
  VersionSummary summary;
  summary.model = proto.model();
  summary.version = proto.version();
  summary.trainer_epoch = proto.trainer_epoch();
  if (v1::VersionState_IsValid(proto.state())) summary.state = static_cast<VersionState>(proto.state());
  summary.adapter = proto.adapter();
  summary.installs_held = proto.installs_held();
  summary.abort_reason = proto.abort_reason();
  summary.tensors = proto.tensors();
  summary.bytes = proto.bytes();
  summary.chunk_bytes = proto.chunk_bytes();
  if (proto.has_manifest_digest()) summary.manifest_digest = proto.manifest_digest();
  summary.converted_bytes = proto.converted_bytes();
  summary.declared_tensors = proto.declared_tensors();
  summary.declared_bytes = proto.declared_bytes();
  summary.received_bytes = proto.received_bytes();
  summary.world = proto.world();
  summary.joined_ranks = proto.joined_ranks();
  summary.committed_ranks = proto.committed_ranks();
  summary.spooled = proto.spooled();
  summary.mapped = proto.mapped();
  summary.opened_at_ns = proto.opened_at_ns();
  summary.closed_at_ns = proto.closed_at_ns();
  summary.open_ns = proto.open_ns();
  summary.receive_ns = proto.receive_ns();
  summary.convert_ns = proto.convert_ns();
  summary.elapsed_ns = proto.elapsed_ns();
  return summary;
}

v1::VersionSummary ToProto(const VersionSummary& summary) {
  v1::VersionSummary proto;
  proto.set_model(summary.model);
  proto.set_version(summary.version);
  proto.set_trainer_epoch(summary.trainer_epoch);
  proto.set_state(static_cast<v1::VersionState>(summary.state));
  proto.set_adapter(summary.adapter);
  proto.set_installs_held(summary.installs_held);
  proto.set_abort_reason(summary.abort_reason);
  proto.set_tensors(summary.tensors);
  proto.set_bytes(summary.bytes);
  proto.set_chunk_bytes(summary.chunk_bytes);
  if (summary.manifest_digest.has_value()) proto.set_manifest_digest(*summary.manifest_digest);
  proto.set_converted_bytes(summary.converted_bytes);
  proto.set_declared_tensors(summary.declared_tensors);
  proto.set_declared_bytes(summary.declared_bytes);
  proto.set_received_bytes(summary.received_bytes);
  proto.set_world(summary.world);
  proto.set_joined_ranks(summary.joined_ranks);
  proto.set_committed_ranks(summary.committed_ranks);
  proto.set_spooled(summary.spooled);
  proto.set_mapped(summary.mapped);
  proto.set_opened_at_ns(summary.opened_at_ns);
  proto.set_closed_at_ns(summary.closed_at_ns);
  proto.set_open_ns(summary.open_ns);
  proto.set_receive_ns(summary.receive_ns);
  proto.set_convert_ns(summary.convert_ns);
  proto.set_elapsed_ns(summary.elapsed_ns);
  return proto;
}

}  // namespace refit
