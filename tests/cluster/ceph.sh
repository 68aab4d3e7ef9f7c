#!/bin/sh
# A real S3 server where MinIO's image cannot be had: one Ceph monitor, one OSD on a file, one gateway on port 9000.
# Its two users come from the environment. Everything lies under /data, so that it outlives the container.
set -eu
export CEPH_CONF=/data/ceph.conf
if [ ! -f /data/ready ]; then
  rm -rf /data/mon /data/osd
  mkdir -p /data/mon /data/osd /data/rgw
  fsid=$(cat /proc/sys/kernel/random/uuid)
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:3300,v1:127.0.0.1:6789]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = /data/keyring
osd_pool_default_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_initial_members = a
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_osd_nearfull_ratio = 0.97
mon_osd_backfillfull_ratio = 0.98
mon_osd_full_ratio = 0.99
osd_pool_default_pg_autoscale_mode = off
run_dir = /run
err_to_stderr = false
log_file = /dev/null
mon_cluster_log_file = /dev/null
admin_socket = /run/\$cluster-\$name.asok
pid_file =
[mon.a]
host = a
mon_data = /data/mon
[osd.0]
osd_data = /data/osd
osd_objectstore = bluestore
bluestore_block_size = 4294967296
bluestore_block_create = true
osd_memory_target = 939524096
osd_class_dir = /usr/lib/x86_64-linux-gnu/rados-classes
[client.rgw]
rgw_frontends = beast port=9000
rgw_data = /data/rgw
rgw_thread_pool_size = 32
rgw_enable_usage_log = false
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 5
CONF
  ceph-authtool --create-keyring /data/keyring --gen-key -n mon. --cap mon 'allow *' >/dev/null
  ceph-authtool /data/keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
  ceph-authtool /data/keyring --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
  ceph-authtool /data/keyring --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
  monmaptool --create --fsid "$fsid" --addv a '[v2:127.0.0.1:3300,v1:127.0.0.1:6789]' /tmp/monmap --clobber >/dev/null
  ceph-mon --mkfs -i a --monmap /tmp/monmap --keyring /data/keyring
  ceph-mon -i a
  uuid=$(cat /proc/sys/kernel/random/uuid)
  ceph osd new "$uuid" >/dev/null
  ceph-osd -i 0 --mkfs --osd-uuid "$uuid"
  ceph-osd -i 0
  ceph osd crush add osd.0 1.0 root=default host=a >/dev/null
  radosgw-admin user create --uid=root --display-name=root --access-key="$MINIO_ROOT_USER" \
    --secret-key="$MINIO_ROOT_PASSWORD" >/dev/null
  radosgw-admin user create --uid=xray --display-name=xray --access-key="$S3_ACCESS_KEY" \
    --secret-key="$S3_SECRET_KEY" --max-buckets=-1 >/dev/null
  touch /data/ready
else
  ceph-mon -i a
  ceph-osd -i 0
  # As MinIO's own tool does when the user is added again: a changed secret is taken over.
  radosgw-admin key create --uid=xray --key-type=s3 --access-key="$S3_ACCESS_KEY" --secret-key="$S3_SECRET_KEY" >/dev/null
fi
exec radosgw -f -n client.rgw
