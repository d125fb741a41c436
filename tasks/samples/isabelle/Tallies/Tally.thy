(*  Title:   Tally
    Counting the occurrences of an element in a list
*)

section \<open>Tallies of lists\<close>

theory Tally
  imports Main
begin

text \<open>
  The tally of an element is the number of places of a list at which it stands.
\<close>

fun tally :: "'a \<Rightarrow> 'a list \<Rightarrow> nat" where
  "tally x [] = 0"
| "tally x (y # ys) = (if x = y then Suc (tally x ys) else tally x ys)"

lemma tally_append [simp]: "tally x (xs @ ys) = tally x xs + tally x ys"
  by (induction xs) auto

lemma tally_rev [simp]: "tally x (rev xs) = tally x xs"
  by (induction xs) auto

lemma tally_le_length: "tally x xs \<le> length xs"
proof (induction xs)
  case Nil
  then show ?case by simp
next
  case (Cons y ys)
  then show ?case by (cases "x = y") auto
qed

lemma tally_zero_iff: "tally x xs = 0 \<longleftrightarrow> x \<notin> set xs"
  by (induction xs) auto

end
