refit_test(version_store_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
           version_store_test.cc DEPS refit::server LABELS unit)
    refit_test(work_queue_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
               work_queue_test.cc DEPS refit::server LABELS unit)
        refit_test(event_log_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                   event_log_test.cc DEPS refit::server LABELS unit)
            refit_test(worker_registry_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                       worker_registry_test.cc DEPS refit::server LABELS unit)
                refit_test(rank_shards_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                           rank_shards_test.cc DEPS refit::server LABELS unit)
                    refit_test(chunk_progress_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                               chunk_progress_test.cc DEPS refit::server LABELS unit)
                        refit_test(packed_chunks_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                   packed_chunks_test.cc DEPS refit::server LABELS unit)
                            refit_test(spool_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                       spool_test.cc DEPS refit::server LABELS unit)
                                refit_test(peer_streams_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                           peer_streams_test.cc DEPS refit::server LABELS unit)
                                    refit_test(self_check_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                               self_check_test.cc DEPS refit::server refit::certificates LABELS unit)
                                        refit_test(counters_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                                   counters_test.cc DEPS refit::server LABELS unit)
                                            refit_test(settings_test SOURCES ${CMAKE_CURRENT_LIST_DIR} / server /
                                                       settings_test.cc DEPS refit::server LABELS unit)
