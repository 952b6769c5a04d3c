"""What is known of the people of a delivery: profiles, memberships, consent, last visits."""
