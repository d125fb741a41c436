section \<open>Majorities\<close>

theory Majority
  imports
    "HOL-Library.Multiset"  (* for comparison only *)
    Same_Tally
begin

text \<open>An element has the majority if it stands at more than half of the places.\<close>

definition majority :: "'a \<Rightarrow> 'a list \<Rightarrow> bool" where
  "majority x xs \<longleftrightarrow> length xs < 2 * tally x xs"

lemma majority_nonempty: "majority x xs \<Longrightarrow> xs \<noteq> []"
  by (auto simp: majority_def)

lemma majority_rev: "majority x (rev xs) \<longleftrightarrow> majority x xs"
  by (simp add: majority_def)

lemma tally_add_le:
  assumes "x \<noteq> y"
  shows "tally x xs + tally y xs \<le> length xs"
  using assms by (induction xs) auto

theorem majority_unique:
  assumes "majority x xs" and "majority y xs"
  shows "x = y"
proof (rule ccontr)
  assume "x \<noteq> y"
  then have "tally x xs + tally y xs \<le> length xs"
    by (rule tally_add_le)
  with assms show False
    by (simp add: majority_def)
qed

lemma tally_count: "tally x xs = count (mset xs) x"
  by (induction xs) auto

end
