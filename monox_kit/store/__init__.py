"""The logit store: a teacher's logits with their texts, on disk, crash-safe and checkable."""

from monox_kit.store.beginning import beginning
from monox_kit.store.builder import ShardBuilder
from monox_kit.store.folder import begun_manifest, require_local
from monox_kit.store.format import CompleteRecord, ShardRange, StoreManifest
from monox_kit.store.interop import ExportedStore, export_store
from monox_kit.store.merge import MergeReport, merge_stores
from monox_kit.store.reader import LogitStore, StoreInfo
from monox_kit.store.sampler import RowPermutation
from monox_kit.store.stats import StoreStats, store_stats
from monox_kit.store.verify import VerifyReport, verify_store
from monox_kit.store.writer import StoreWriter

__all__ = [
    "CompleteRecord",
    "ExportedStore",
    "LogitStore",
    "MergeReport",
    "RowPermutation",
    "ShardBuilder",
    "ShardRange",
    "StoreInfo",
    "StoreManifest",
    "StoreStats",
    "StoreWriter",
    "VerifyReport",
    "beginning",
    "begun_manifest",
    "export_store",
    "merge_stores",
    "require_local",
    "store_stats",
    "verify_store",
]
