section \<open>Lists with the same tallies\<close>

theory Same_Tally
  imports Tally
begin

text \<open>Two lists are alike if every element has the same tally in both.\<close>

definition alike :: "'a list \<Rightarrow> 'a list \<Rightarrow> bool" where
  "alike xs ys \<longleftrightarrow> (\<forall>x. tally x xs = tally x ys)"

lemma alike_refl [simp]: "alike xs xs"
  by (simp add: alike_def)

lemma alike_sym: "alike xs ys \<Longrightarrow> alike ys xs"
  by (simp add: alike_def)

lemma alike_trans: "alike xs ys \<Longrightarrow> alike ys zs \<Longrightarrow> alike xs zs"
  by (simp add: alike_def)

lemma alike_rev: "alike (rev xs) xs"
  by (simp add: alike_def)

lemma alike_append_comm: "alike (xs @ ys) (ys @ xs)"
  by (simp add: alike_def)

lemma alike_set:
  assumes "alike xs ys"
  shows "set xs = set ys"
proof (rule set_eqI)
  fix x
  have "tally x xs = tally x ys"
    using assms by (simp add: alike_def)
  then show "x \<in> set xs \<longleftrightarrow> x \<in> set ys"
    using tally_zero_iff [of x xs] tally_zero_iff [of x ys] by auto
qed

end
