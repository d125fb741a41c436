section \<open>Taking from the queue\<close>

theory Popping
  imports Stack_Pair
begin

definition pop :: "'a stacks \<Rightarrow> ('a \<times> 'a stacks) option" where
  "pop q = (case turn q of
      ([], _) \<Rightarrow> None
    | (x # front, back) \<Rightarrow> Some (x, (front, back)))"

lemma pop_None: "pop q = None \<Longrightarrow> contents q = []"
proof -
  assume none: "pop q = None"
  obtain front back where turned: "turn q = (front, back)"
    by (cases "turn q")
  with none have "front = []"
    by (simp add: pop_def split: list.splits)
  moreover have "front = [] \<Longrightarrow> back = []"
    using turned by (cases q rule: turn.cases) auto
  ultimately have "contents (turn q) = []"
    using turned by simp
  then show "contents q = []"
    by simp
qed

lemma pop_Some:
  assumes "pop q = Some (x, q')"
  shows "contents q = x # contents q'"
proof -
  obtain front back where turned: "turn q = (front, back)"
    by (cases "turn q")
  with assms obtain rest where "front = x # rest" and "q' = (rest, back)"
    by (auto simp: pop_def split: list.splits)
  with turned have "contents (turn q) = x # contents q'"
    by simp
  then show ?thesis
    by simp
qed

end
