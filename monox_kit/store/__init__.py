"""The logit store: a teacher's logits with their texts, on disk, crash-safe and checkable."""

from monox_kit.store.address import store_url
from monox_kit.store.builder import ShardBuilder
from monox_kit.store.export import ExportedStore, export_store
from monox_kit.store.folder import begun_manifest
from monox_kit.store.folder_writer import FolderWriter, begin_store
from monox_kit.store.format import ShardRange, StoreManifest
from monox_kit.store.location import StoreLocation, store_info, store_location, verify_location
from monox_kit.store.merge import MergeReport, merge_stores
from monox_kit.store.reader import LogitStore, StoreInfo
from monox_kit.store.remote.fetch import FetchReport, fetch_store, verify_remote
from monox_kit.store.select import SelectReport, select_store
from monox_kit.store.stats import StoreStats, store_stats
from monox_kit.store.verify import VerifyReport, verify_store
from monox_kit.store.writer import StoreWriter

__all__ = [
    "ExportedStore", "FetchReport", "FolderWriter", "LogitStore", "MergeReport", "SelectReport",
    "ShardBuilder", "ShardRange", "StoreInfo", "StoreLocation", "StoreManifest", "StoreStats",
    "StoreWriter", "VerifyReport", "begin_store", "begun_manifest", "export_store", "fetch_store",
    "merge_stores", "select_store", "store_info", "store_location", "store_stats", "store_url",
    "verify_location", "verify_remote", "verify_store",
]  # fmt: skip
