"""The faults that matter most, put into our own code one at a time, each with a test that notices.

A mutant is a replacement of text that occurs once in one file of the package. The tests are node
ids as pytest takes them; one with parameters stands for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

DURABLE = "monox_kit/durable.py"
LOCKS = "monox_kit/locks.py"
WRITER = "monox_kit/store/folder_writer.py"
BUILDER = "monox_kit/store/builder.py"
RULES = "monox_kit/store/rules.py"
SHARD = "monox_kit/store/shard.py"
READER = "monox_kit/store/reader.py"
KEPT_SCAN = "monox_kit/labelling/kept_scan.py"
FILLING = "monox_kit/store/filling.py"
SCORING = "monox_kit/models/scoring.py"
OBJECTS = "monox_kit/store/remote/objects.py"
URL_WRITER = "monox_kit/store/remote/writer.py"

IN_DURABLE = "tests/unit/test_durable.py::"
IN_LOCKS = "tests/unit/test_locks.py::"
IN_WRITER = "tests/unit/test_store_writer.py::"
IN_BUILDER = "tests/unit/test_store_builder.py::"
IN_READER = "tests/unit/test_store_reader.py::"
IN_KEPT_SCAN = "tests/unit/test_kept_scan.py::"
IN_WINDOWS = "tests/unit/test_windows.py::"
IN_SCORING = "tests/integration/test_scoring.py::"
IN_LABELLING = "tests/integration/test_labelling.py::"
IN_POWER = "tests/faults/test_power_loss.py::"
IN_URL = "tests/unit/test_store_url.py::"

FILE_ORDER = IN_DURABLE + "test_file_reaches_the_disk_before_its_name_does"
FOLDER_ORDER = IN_DURABLE + "test_folder_reaches_the_disk_before_its_name_does"
SIDE_BY_SIDE = IN_WRITER + "test_writers_of_different_shards_work_side_by_side"
AFTER_A_KILL = IN_POWER + "test_a_power_loss_after_a_kill_between_a_name_and_its_fsync"
CHANGED_ROWS = IN_WINDOWS + "test_rows_that_changed_since_the_scan_are_an_error"
OWN_LOGITS = IN_SCORING + "test_every_document_gets_its_own_logits_and_equal_ones_are_computed_once"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        name: what is wrong.
        file: the file that is changed, below the root of the checkout.
        old: text that occurs once in it.
        new: what stands in its place.
        test: the node id that must fail.
        is_sampled: whether it is among the few that run by default.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    is_sampled: bool = False


MUTANTS = (
    Mutant(
        name="no fsync of a file",
        file=DURABLE,
        old="                os.fsync(stream.fileno())\n",
        new="",
        test=FILE_ORDER,
        is_sampled=True,
    ),
    Mutant(
        name="no fsync of a shard's files",
        file=DURABLE,
        old="                os.fsync(descriptor)\n            finally:",
        new="                pass\n            finally:",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="no fsync of the parent after a folder's rename",
        file=DURABLE,
        old="    try:\n        fsync_folder(final.parent)\n",
        new="    try:\n        pass\n",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="a folder is committed on an exception",
        file=DURABLE,
        old="            shutil.rmtree(temporary, ignore_errors=True)\n",
        new="            _rename_folder(temporary, final, replace=replace)\n",
        test=IN_DURABLE + "test_an_error_leaves_the_old_folder",
    ),
    Mutant(
        name="a lock on a file that was removed counts",
        file=LOCKS,
        old="            self.require_current()  # it may have been removed since it was opened\n",
        new="            pass\n",
        test=IN_LOCKS + "test_nobody_gets_a_lock_on_a_file_that_another_removed",
    ),
    Mutant(
        name="no lock on the shards",
        file=WRITER,
        old="            locks.take(*shard_bytes(self._claimed), _shown(self._claimed))\n",
        new="",
        test=IN_WRITER + "test_a_second_writer_is_refused_until_the_first_is_gone",
    ),
    Mutant(
        name="leftovers of other writers are removed",
        file=WRITER,
        old="    remove_all_leftovers(parent, shards)\n",
        new="    remove_all_leftovers(parent)\n",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="a store is completed by whoever is done, without the others' shards",
        file=WRITER,
        old="                if len(shards) < self.manifest.num_shards:\n"
        "                    return None\n",
        new="",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="the store's own names are not synced at resume",
        file=WRITER,
        old="(parent, folder, folder.absolute().parent)",
        new="(parent,)",
        test=AFTER_A_KILL + "[store.json]",
    ),
    Mutant(
        name="a writer commits without its lock",
        file=WRITER,
        old="        self._locks.require_current()\n        return store\n",
        new="        return store\n",
        test=IN_WRITER + "test_a_writer_whose_lock_was_removed_commits_nothing[nothing_beside]",
    ),
    Mutant(
        name="nothing is read back",
        file=BUILDER,
        old="        record = store.shards.read_record(folder, shard)\n",
        new="        return\n",
        test=IN_WRITER + "test_a_disk_that_gives_back_other_bytes_is_noticed",
    ),
    Mutant(
        name="a shard's rows are not counted",
        file=BUILDER,
        old="        if self.next_row != shard.stop:\n",
        new="        if False:\n",
        test=IN_BUILDER + "test_too_few_rows_commit_nothing",
    ),
    Mutant(
        name="gold labels are shifted by one row",
        file=RULES,
        old="np.ascontiguousarray(labels, dtype",
        new="np.ascontiguousarray(np.roll(labels, 1), dtype",
        test=IN_READER + "test_rows_come_in_the_order_asked_for",
        is_sampled=True,
    ),
    Mutant(
        name="no digest is checked",
        file=SHARD,
        old="        if found is not None and found != file.sha256:\n",
        new="        if False:\n",
        test=IN_READER + "test_when_a_changed_byte_is_noticed",
    ),
    Mutant(
        name="an incomplete store is taken for complete",
        file=READER,
        old="store.checked_complete() if allow_incomplete else store.finished()",
        new="store.checked_complete()",
        test=IN_READER + "test_an_incomplete_store_is_refused_unless_asked_for",
    ),
    Mutant(
        name="a kept scan of other files is taken",
        file=KEPT_SCAN,
        old='    if header["key"] != key:\n',
        new="    if False:\n",
        test=IN_KEPT_SCAN + "test_files_that_were_touched_are_scanned_again",
    ),
    Mutant(
        name="a corpus that changes is not noticed",
        file=FILLING,
        old="                if digest.hexdigest() != mark.digest or",
        new="                if",
        test=CHANGED_ROWS,
    ),
    Mutant(
        name="rows that were appended are not noticed",
        file=FILLING,
        old=" or (is_last and any(True for _ in documents)):\n",
        new=":\n",
        test=CHANGED_ROWS,
    ),
    Mutant(
        name="logits of the distinct texts alone: a set, no multiset",
        file=SCORING,
        old="    return Scored(logits[inverse], ",
        new="    return Scored(logits, ",
        test=OWN_LOGITS,
    ),
    Mutant(
        name="logits stand in the order of the batches",
        file=SCORING,
        old="        logits[batch_rows] = checked_logits(",
        new="        logits[np.sort(batch_rows)] = checked_logits(",
        test=OWN_LOGITS,
    ),
    Mutant(
        name="gold labels are those of the row before",
        file=FILLING,
        old='(window.documents, "corpus", ',
        new='([window.documents[-1], *window.documents[:-1]], "corpus", ',
        test=IN_LABELLING + "test_stored_logits_are_those_of_one_text_at_a_time",
    ),
    Mutant(
        name="objects are put over others",
        file=OBJECTS,
        old='put(self._path(name), content, mode="create", ',
        new="put(self._path(name), content, ",
        test=IN_URL + "test_of_two_that_label_a_shard_the_first_one_wins",
    ),
    Mutant(
        name="the winner's rows are not compared",
        file=URL_WRITER,
        old="        if name not in _COMPUTED and found != file:\n",
        new="        if False:\n",
        test=IN_URL + "test_a_shard_of_other_rows_is_no_winner",
    ),
    Mutant(
        name="objects are not read back",
        file=URL_WRITER,
        old="            for _ in store.files(head):\n",
        new="            for _ in ():\n",
        test=IN_URL + "test_a_service_that_changes_what_is_put_is_found_out",
    ),
)
