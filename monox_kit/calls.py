"""The stages as functions; `calls.pyi` says their types, which `make docs` writes anew."""

from __future__ import annotations

from monox_kit.door import STAGES

train_teacher = STAGES["train_teacher"].call()
export = STAGES["export"].call()
label = STAGES["label"].call()
train_student = STAGES["train_student"].call()
evaluate = STAGES["evaluate"].call()
compare = STAGES["compare"].call()
benchmark = STAGES["benchmark"].call()
trim = STAGES["trim"].call()
calibrate = STAGES["calibrate"].call()
import_store = STAGES["import_store"].call()
select_store = STAGES["select_store"].call()
predict = STAGES["predict"].call()
serve = STAGES["serve"].call()
run = STAGES["run"].call()
reproduce = STAGES["reproduce"].call()
advise = STAGES["advise"].call()
