section \<open>A queue made of two stacks\<close>

theory Stack_Pair
  imports Main
begin

text \<open>
  The front of the queue is the head of the first list; what comes in is put on the second.
\<close>

type_synonym 'a stacks = "'a list \<times> 'a list"

definition empty :: "'a stacks" where
  "empty = ([], [])"

fun push :: "'a \<Rightarrow> 'a stacks \<Rightarrow> 'a stacks" where
  "push x (front, back) = (front, x # back)"

fun turn :: "'a stacks \<Rightarrow> 'a stacks" where
  "turn ([], back) = (rev back, [])"
| "turn (front, back) = (front, back)"

fun contents :: "'a stacks \<Rightarrow> 'a list" where
  "contents (front, back) = front @ rev back"

lemma contents_empty [simp]: "contents empty = []"
  by (simp add: empty_def)

lemma contents_push [simp]: "contents (push x q) = contents q @ [x]"
  by (cases q) simp

lemma contents_turn [simp]: "contents (turn q) = contents q"
  by (cases q rule: turn.cases) auto

end
