#!/bin/bash -e
# Racimo's repository, with packages made (make dist), is where this stage is linked from; otherwise RACIMO says where.
# RACIMO_PROFILE: worker (default) or manager. pi-gen gives a stage only those variables that its config exports.
racimo=${RACIMO:-$(readlink -f ../../../..)}
if [ ! -x "$racimo/images/lay" ]; then
  echo "$racimo is not Racimo's repository: link this stage into pi-gen's directory, or export RACIMO=… in its config" >&2
  exit 1
fi
"$racimo/images/lay" "${ROOTFS_DIR}" --profile "${RACIMO_PROFILE:-worker}" --debs "$racimo/target/dist"
