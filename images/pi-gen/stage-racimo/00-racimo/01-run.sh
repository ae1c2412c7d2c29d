#!/bin/bash -e
# RACIMO: Racimo's repository, with packages made (make dist). RACIMO_PROFILE: worker or manager. Both in pi-gen's config.
"${RACIMO:?set RACIMO in the config of pi-gen}/images/lay" "${ROOTFS_DIR}" \
  --profile "${RACIMO_PROFILE:-worker}" --debs "${RACIMO}/target/dist"
