# Manual pages, and completion for shells: the programs write them, from the definitions of their own flags.

set(REFIT_ZSH_FOLDER zsh/site-functions CACHE STRING "Where zsh finds completion; Debian's own is zsh/vendor-completions")

# refit_manual(<target> <program>): builds and installs those of a program.
function(refit_manual target program)
  foreach(written
          ${program}.1=man/man1=--man-page
          ${program}=bash-completion/completions=--completion=bash
          _${program}=${REFIT_ZSH_FOLDER}=--completion=zsh
          ${program}.fish=fish/vendor_completions.d=--completion=fish)
    string(REPLACE "=" ";" parts ${written})
    list(POP_FRONT parts file folder)
    set(path ${PROJECT_BINARY_DIR}/manual/${file})
    set(write COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/manual)
    if(parts MATCHES "man-page")
      list(APPEND write COMMAND ${target} --man-page > ${path} COMMAND gzip -9nf ${path})
      string(APPEND path .gz)
    else()
      list(APPEND write COMMAND ${target} ${parts} > ${path})
    endif()
    add_custom_command(OUTPUT ${path} ${write} DEPENDS ${target} VERBATIM)
    install(FILES ${path} DESTINATION ${CMAKE_INSTALL_DATADIR}/${folder} COMPONENT ${program})
    list(APPEND paths ${path})
  endforeach()
  add_custom_target(${target}_manual ALL DEPENDS ${paths})
endfunction()

refit_manual(refit_cli refit)
refit_manual(refit_server_main refit-server)
