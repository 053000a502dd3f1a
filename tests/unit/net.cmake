refit_test(byte_buffer_test SOURCES net/byte_buffer_test.cc DEPS refit::net LABELS unit)
refit_test(net_test SOURCES net/channel_test.cc net/messages_test.cc net/status_test.cc net/shared_segment_test.cc net/address_test.cc
           net/watched_file_test.cc net/grpc_log_test.cc net/repeated_messages_test.cc net/tcp_state_test.cc DEPS refit::net LABELS unit)
refit_test(name_lookup_test SOURCES net/name_lookup_test.cc DEPS refit::net LABELS unit)
refit_test(credentials_test SOURCES net/credentials_test.cc DEPS refit::net refit::certificates OpenSSL::Crypto LABELS unit)
refit_test(raw_call_test SOURCES net/raw_call_test.cc DEPS refit::net LABELS unit)
refit_test(heap_anchor_test SOURCES net/heap_anchor_test.cc DEPS refit::net LABELS unit)
refit_test(raw_reader_test SOURCES net/raw_reader_test.cc DEPS refit::net LABELS unit)
refit_test(descriptor_passing_test SOURCES net/unix_socket_test.cc net/descriptor_messages_test.cc DEPS refit::net LABELS unit)
